// Linux/x86 boot protocol, 2.06 and later: Documentation/arch/x86/boot.rst and zero-page.rst in the kernel's tree. We
// enter the protected-mode kernel directly (64-bit entry where the image offers it, else 32-bit), so the real-mode code
// never runs.
#include <algorithm>

#include "base/trace.h"
#include "boot/entry_state.h"
#include "boot/loader.h"

namespace trapline::boot::loader {

namespace {

// The setup header's fields: offsets in the file and in boot_params alike.
namespace at {
constexpr u64 setup_sects = 0x1f1, syssize = 0x1f4, vid_mode = 0x1fa, boot_flag = 0x1fe, jump = 0x200, header = 0x202,
              version = 0x206, type_of_loader = 0x210, loadflags = 0x211, code32_start = 0x214, ramdisk_image = 0x218,
              ramdisk_size = 0x21c, heap_end_ptr = 0x224, cmd_line_ptr = 0x228, initrd_addr_max = 0x22c,
              kernel_alignment = 0x230, relocatable = 0x234, xloadflags = 0x236, cmdline_size = 0x238,
              setup_data = 0x250, pref_address = 0x258, init_size = 0x260;
// boot_params only
constexpr u64 ext_mem_k = 0x002, acpi_rsdp = 0x070, ext_ramdisk_image = 0x0c0, ext_ramdisk_size = 0x0c4,
              ext_cmd_line_ptr = 0x0c8, alt_mem_k = 0x1e0, e820_entries = 0x1e8, edd = 0x290, e820_table = 0x2d0;
}  // namespace at

constexpr u16 kBootFlag = 0xaa55;
constexpr u32 kHdrS = 0x53726448;
constexpr u8 kLoadedHigh = 1, kCanUseHeap = 0x80, kUndefinedLoader = 0xff;
constexpr u16 kXlfKernel64 = 1, kXlfAbove4G = 2;
constexpr u16 kVideoNormal = 0xffff;
constexpr u64 kEntry64Offset = 0x200, kMaxE820 = 128;

struct Header {
  u16 version = 0, xloadflags = 0;
  u64 setup_size = 0;  // boot sector and real-mode code, bytes
  u64 code_size = 0;   // protected-mode code
  Gpa code32_start, initrd_max, pref_address;
  u64 alignment = 0, init_size = 0, cmdline_max = 0;
  bool relocatable = false;
  bool entry64() const { return xloadflags & kXlfKernel64; }
};

Result<Header, std::string> parse(Bytes image) {
  Header h;
  h.version = load_or_zero<u16>(image, at::version);
  const auto protocol = [&] { return fmt::format("{}.{:02}", h.version >> 8, h.version & 0xff); };
  if (h.version < 0x206)
    return Err{fmt::format("Linux boot protocol {} is too old: 2.06 (Linux 2.6.22) or later is needed", protocol())};
  if (!(load_or_zero<u8>(image, at::loadflags) & kLoadedHigh))
    return Err{std::string("zImage (loads below 640 KiB): build a bzImage")};
  const u8 sects = load_or_zero<u8>(image, at::setup_sects);
  h.setup_size = (u64{sects ? sects : u8{4}} + 1) * 512;
  h.code_size = u64{load_or_zero<u32>(image, at::syssize)} * 16;
  // syssize counts whole paragraphs: up to 15 bytes of the last one may be missing (memtest86+).
  if (h.setup_size >= image.size() || h.code_size > image.size() - h.setup_size + 15)
    return Err{fmt::format("truncated: the setup header announces {} bytes, the file has {}: get a whole copy",
                           h.setup_size + h.code_size, image.size())};
  h.code_size = std::min<u64>(h.code_size, image.size() - h.setup_size);
  if (h.code_size == 0) return Err{std::string("damaged setup header: no protected-mode code (syssize is 0)")};
  h.code32_start = Gpa{load_or_zero<u32>(image, at::code32_start)};
  // Programs that dress as a kernel for boot loaders (iPXE) leave the entry out: only their real-mode code can be
  // called.
  if (h.code32_start < Gpa{MiB})
    return Err{
        std::string("starts in real mode and needs a BIOS, which this machine has not (its setup header names no "
                    "protected-mode entry): give a kernel")};
  h.initrd_max = Gpa{load_or_zero<u32>(image, at::initrd_addr_max)};
  h.cmdline_max = load_or_zero<u32>(image, at::cmdline_size);
  h.relocatable = load_or_zero<u8>(image, at::relocatable) != 0;
  h.alignment = load_or_zero<u32>(image, at::kernel_alignment);
  if (h.relocatable && !power_of_two(h.alignment))
    return Err{fmt::format("damaged setup header: kernel_alignment {:#x} is not a power of two", h.alignment)};
  h.pref_address = h.code32_start;
  h.init_size = h.code_size;
  if (h.version >= 0x20a) {
    h.pref_address = Gpa{load_or_zero<u64>(image, at::pref_address)};
    h.init_size = std::max<u64>(load_or_zero<u32>(image, at::init_size), h.code_size);
  }
  if (h.version >= 0x20c) h.xloadflags = load_or_zero<u16>(image, at::xloadflags);
  return h;
}

// The memory that the kernel touches before it reads the memory map, when loaded at `where`. One that cannot relocate
// unpacks itself to pref_address wherever it was loaded.
struct Footprint {
  Gpa start;
  u64 size = 0;
};
Footprint footprint(const Header& h, Gpa where) {
  if (h.relocatable) return {where, h.init_size};
  const Gpa start = std::min(where, h.pref_address);
  return {start, std::max(where.wrapping_add(h.code_size), h.pref_address.wrapping_add(h.init_size)) - start};
}

bool claimable(const Footprint& f) {
  return f.start >= Gpa{MiB} && f.start < Gpa{kPciHoleStart} && f.size <= Gpa{kPciHoleStart} - f.start;
}

// Where the protected-mode kernel goes: where it prefers to be, else (relocatable) the lowest aligned place above.
// Below it would not stay: Linux then unpacks itself to LOAD_PHYSICAL_ADDR, which is pref_address.
Result<Gpa, std::string> place_kernel(LoadContext& c, const Header& h) {
  if (h.pref_address >= Gpa{kPciHoleStart})
    return Err{fmt::format("damaged setup header: pref_address {} is beyond 3 GiB", h.pref_address)};
  const Gpa preferred = h.relocatable ? *align_up(h.pref_address, h.alignment) : h.code32_start;
  Footprint f = footprint(h, preferred);
  if (claimable(f) && c.place.claim(f.start, f.size) == Placer::Claim::ok) return preferred;
  if (h.relocatable) {
    if (const auto at = c.place.lowest(h.init_size, h.alignment, std::max(preferred, Gpa{MiB}), Gpa{kPciHoleStart}))
      return *at;
  }
  if (!claimable(f))
    return Err{fmt::format("damaged setup header: {} at {} is no place for a kernel", human_size(f.size), f.start)};
  return Err{fmt::format("setup header asks for {} at {}, but the guest has {}: {}", human_size(f.size),
                         human_size(f.start.raw), human_size(c.ram.size()), memory_remedy(f.start.raw + f.size))};
}

// As high as the kernel can reach and RAM goes; above 4 GiB only if there is no room below.
Result<Gpa, std::string> place_initrd(LoadContext& c, const Header& h) {
  const u64 size = c.request.initrd.size();
  const Gpa end = std::min(h.initrd_max.wrapping_add(1), Gpa{kPciHoleStart});
  if (const auto at = c.place.highest(size, kPageSize, Gpa{MiB}, end)) return *at;
  if (h.entry64() && (h.xloadflags & kXlfAbove4G))
    if (const auto at = c.place.highest(size, kPageSize, Gpa{kPciHoleEnd}, Gpa{~u64{0}})) return *at;
  if (size >= end.raw)
    return Err{fmt::format("the initrd is too large: {}, and this kernel takes one only below {}: shrink it",
                           human_size(size), human_size(end.raw))};
  return Err{fmt::format("the initrd is too large: {} beside the kernel's {} in {} of guest memory: {}",
                         human_size(size), human_size(h.init_size), human_size(c.ram.size()),
                         memory_remedy(2 * (size + h.init_size)))};
}

struct Placed {
  Gpa kernel, initrd, command_line;
};

// boot_params, the "zero page": the image's setup header plus what the boot loader fills in.
class ZeroPage {
 public:
  explicit ZeroPage(Bytes image) {
    // The header's length is the byte at 0x201 beyond 0x202, in the jump instruction over it.
    const u64 end = std::min<u64>({at::header + load_or_zero<u8>(image, at::jump + 1), at::edd, image.size()});
    std::memcpy(page_ + at::setup_sects, image.data() + at::setup_sects, end - at::setup_sects);
  }
  template <class T>
  void set(u64 offset, T value) {
    std::memcpy(page_ + offset, &value, sizeof value);
  }
  template <class T>
  T get(u64 offset) const {
    T value;
    std::memcpy(&value, page_ + offset, sizeof value);
    return value;
  }
  Bytes bytes() const { return std::as_bytes(std::span{page_}); }

 private:
  u8 page_[kPageSize] = {};
};

void fill_memory(ZeroPage& zp, const GuestMemory& ram) {
  const auto map = memory_map(ram);
  const u64 extended = ram.low_end() > MiB ? (ram.low_end() - MiB) / KiB : 0;
  zp.set<u16>(at::ext_mem_k, static_cast<u16>(std::min<u64>(extended, 0xffff)));
  zp.set<u32>(at::alt_mem_k, static_cast<u32>(extended));
  u64 count = 0;
  for (const MemoryRange& r : map) {
    if (count == kMaxE820) break;
    const u64 entry = at::e820_table + 20 * count++;
    zp.set<u64>(entry, r.start.raw);
    zp.set<u64>(entry + 8, r.size);
    zp.set<u32>(entry + 16, static_cast<u32>(r.type));
  }
  zp.set<u8>(at::e820_entries, static_cast<u8>(count));
}

ZeroPage make_zero_page(const LoadContext& c, const Placed& p) {
  ZeroPage zp(c.request.kernel);
  zp.set<u8>(at::type_of_loader, kUndefinedLoader);
  zp.set<u8>(at::loadflags, zp.get<u8>(at::loadflags) | kCanUseHeap);
  zp.set<u16>(at::heap_end_ptr, 0xfe00);
  zp.set<u16>(at::vid_mode, kVideoNormal);
  zp.set<u32>(at::code32_start, static_cast<u32>(p.kernel.raw));
  zp.set<u64>(at::setup_data, 0);
  zp.set<u32>(at::cmd_line_ptr, static_cast<u32>(p.command_line.raw));
  zp.set<u32>(at::ext_cmd_line_ptr, 0);
  const u64 size = c.request.initrd.size();
  zp.set<u32>(at::ramdisk_image, static_cast<u32>(p.initrd.raw));
  zp.set<u32>(at::ext_ramdisk_image, static_cast<u32>(p.initrd.raw >> 32));
  zp.set<u32>(at::ramdisk_size, static_cast<u32>(size));
  zp.set<u32>(at::ext_ramdisk_size, static_cast<u32>(size >> 32));
  zp.set<u64>(at::acpi_rsdp, c.rsdp.raw);
  fill_memory(zp, c.ram);
  return zp;
}

// With what the machine cannot tell otherwise before it: behind it may be words for init ("--"). What the user says of
// it counts; kernels before 5.9 do not know it.
std::string full_command_line(const BootRequest& request, u64 most) {
  constexpr std::string_view kTsc = "tsc_early_khz=";
  const std::string& line = request.command_line;
  if (request.tell_tsc_khz == 0 || line.find(kTsc) != std::string::npos) return line;
  std::string full = fmt::format("{}{}{}{}", kTsc, request.tell_tsc_khz, line.empty() ? "" : " ", line);
  return full.size() <= most ? full : line;
}

}  // namespace

bool is_bzimage(Bytes image) {
  return load<u16>(image, at::boot_flag) == kBootFlag && load<u32>(image, at::header) == kHdrS;
}

Loaded load_linux(LoadContext& c) {
  const Bytes image = c.request.kernel;
  const auto header = parse(image);
  if (!header) return Err{header.error()};
  const Header& h = *header;
  if (!c.request.modules.empty()) return Err{std::string("a Linux bzImage takes no modules: use --initrd")};
  const std::string line = full_command_line(c.request, h.cmdline_max);
  if (line.size() > h.cmdline_max)
    return Err{fmt::format("the command line has {} bytes, but this kernel takes at most {}: shorten --append",
                           line.size(), h.cmdline_max)};

  Placed p;
  const auto kernel = place_kernel(c, h);
  if (!kernel) return Err{kernel.error()};
  p.kernel = *kernel;
  put_image(c, p.kernel, *slice(image, h.setup_size, h.code_size));
  if (!c.request.initrd.empty()) {
    const auto initrd = place_initrd(c, h);
    if (!initrd) return Err{initrd.error()};
    p.initrd = *initrd;
    put_image(c, p.initrd, c.request.initrd);
  }
  const auto text = place_string(c, line);
  const auto zero_page = place_low(c, kPageSize, kPageSize);
  if (!text || !zero_page) return Err{no_room(c.ram)};
  p.command_line = *text;
  put(c.ram, *zero_page, make_zero_page(c, p).bytes());
  TRACE(boot, "linux: kernel {}+{:#x} initrd {}+{:#x} boot_params {} command line {}", p.kernel, h.init_size, p.initrd,
        c.request.initrd.size(), *zero_page, p.command_line);

  const Gpa entry = p.kernel.wrapping_add(h.entry64() ? kEntry64Offset : 0);
  if (!(h.entry64() ? enter_long(c, entry.raw, kLinuxSelectors) : enter_protected(c, entry.raw, kLinuxSelectors)))
    return Err{no_room(c.ram)};
  c.cpu.gpr[isa::rsi] = zero_page->raw;
  return BootInfo{h.entry64() ? BootFormat::linux64 : BootFormat::linux32, entry};
}

}  // namespace trapline::boot::loader
