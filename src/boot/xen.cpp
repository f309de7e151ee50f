#include "boot/xen.h"

#include <algorithm>
#include <utility>

#include "base/trace.h"
#include "boot/loader.h"
#include "boot/xen_image.h"
#include "packing/unpack.h"

namespace trapline::boot {

namespace {

using namespace loader;
using para::xen::gpa;
using para::xen::Layout;
using para::xen::Mfn;
using para::xen::Pfn;
namespace pte = para::xen::pte;

constexpr u64 kMostUnpacked = 512 * MiB;
constexpr u64 kSlack = 512 * KiB, kMapUnit = 4 * MiB;
constexpr u64 kUpper = pte::present | pte::writable | pte::user | pte::accessed;
constexpr u64 kPage = kUpper | pte::dirty;

constexpr u64 pages(u64 bytes) { return (bytes + kPageSize - 1) / kPageSize; }

// The tables that map [from, to), beside the level-4 one.
u64 tables_for(Gva from, Gva to) {
  u64 count = 0;
  for (const unsigned shift : {39u, 30u, 21u}) count += ((to.raw - 1) >> shift) - (from.raw >> shift) + 1;
  return count;
}

class Builder {
 public:
  Builder(GuestMemory& ram, para::xen::Domain& domain, const BootRequest& request)
      : ram_{ram}, domain_{domain}, layout_{domain.layout()}, request_{request} {}

  Result<void, std::string> build(cpu::Vcpu& cpu) {
    auto elf = parse_elf(request_.kernel);
    if (!elf) return Err{elf.error()};
    notes_ = xen_notes(*elf);
    if (auto ok = check(*elf); !ok) return ok;
    if (auto ok = place(*elf); !ok) return ok;
    domain_.prepare();
    load(*elf);
    map();
    fill_p2m();
    write_start_info();
    write_hypercall_page();
    TRACE(boot, "xen: {} pages, kernel to {}, start info {}, tables {}+{}, stack {}, mapped to {}", layout_.pages(),
          kernel_end_, start_info_, tables_, table_pages_, stack_, end_);
    const para::xen::Built built{mfn_of(tables_), start_info_,    stack_.wrapping_add(kPageSize),
                                 entry_,          mfn_of(store_), mfn_of(console_)};
    return domain_.begin(cpu, built);
  }

 private:
  Result<void, std::string> check(const ElfImage& elf) {
    if (!notes_.any) return Err{std::string("no Xen PV guest: its ELF file has no note of Xen's: use --para kvm")};
    if (!elf.is64) return Err{std::string("a 32-bit Xen PV guest: only 64-bit ones are supported: use --para kvm")};
    // A PVH kernel's note is another; what names neither a loader nor where it is to lie may still be a PV guest.
    if (notes_.pvh && !notes_.entry && !notes_.virt_base && notes_.loader.empty())
      return Err{std::string("no Xen PV guest, but one of Xen's PVH: use --para kvm")};
    if (!notes_.loader.empty() && notes_.loader != "generic")
      return Err{fmt::format("asks for the Xen loader \"{}\": only \"generic\" is known", notes_.loader)};
    if (request_.command_line.size() >= MAX_GUEST_CMDLINE)
      return Err{
          fmt::format("the command line has {} bytes, at most {} can be passed to a Xen PV guest: shorten --append",
                      request_.command_line.size(), MAX_GUEST_CMDLINE - 1)};
    if (!request_.modules.empty()) return Err{std::string("a Xen PV guest takes no --module: give --initrd")};
    base_ = notes_.virt_base.value_or(Gva{});
    offset_ = notes_.paddr_offset.value_or(notes_.legacy ? base_.raw : 0);
    entry_ = notes_.entry.value_or(elf.entry);
    return {};
  }

  static Err<std::string> beyond(Gva start) {
    return {fmt::format("its notes place it at {}, the end of the address space: the image is damaged", start)};
  }

  // Linear addresses of everything; nothing is written yet.
  Result<void, std::string> place(const ElfImage& elf) {
    u64 used = 0;  // from base_ on
    const u64 room = layout_.pages() * kPageSize;
    for (const ElfSegment& s : elf.segments) {
      const u64 at = s.paddr.raw - offset_;
      if (s.paddr.raw < offset_ || at > room || s.memory_size > room - at)
        return Err{fmt::format("a segment of {} at {:#x} does not fit {} of guest memory: {}",
                               human_size(s.memory_size), at, human_size(ram_.size()),
                               memory_remedy(2 * (at + s.memory_size)))};
      used = std::max(used, at + s.memory_size);
    }
    const auto take = [&](u64 bytes) {
      return base_.wrapping_add(std::exchange(used, used + pages(bytes) * kPageSize));
    };
    used = pages(used) * kPageSize;
    kernel_end_ = base_.wrapping_add(used);
    p2m_bytes_ = layout_.pages() * sizeof(u64);
    if (!request_.initrd.empty() && !notes_.mod_start_pfn) initrd_ = take(request_.initrd.size());
    if (!notes_.init_p2m) p2m_ = take(p2m_bytes_);
    start_info_ = take(kPageSize);
    store_ = take(kPageSize);
    console_ = take(kPageSize);
    tables_ = base_.wrapping_add(used);
    // The tables map themselves, too.
    for (table_pages_ = 1;; table_pages_++) {
      const u64 with_stack = used + (table_pages_ + 1) * kPageSize + kSlack;
      const auto end = base_.checked_add((with_stack + kMapUnit - 1) / kMapUnit * kMapUnit);
      if (!end) return beyond(base_);
      end_ = *end;
      if (1 + tables_for(base_, end_) <= table_pages_) break;
    }
    stack_ = tables_.wrapping_add(table_pages_ * kPageSize);
    Pfn next{(end_ - base_) / kPageSize};
    if (notes_.init_p2m) {
      p2m_ = *notes_.init_p2m;
      if (!p2m_.checked_add(p2m_bytes_)) return beyond(p2m_);
      p2m_pfn_ = next;
      p2m_pages_ = pages(p2m_bytes_) + tables_for(p2m_, p2m_.wrapping_add(p2m_bytes_));
      next += p2m_pages_;
    }
    if (!request_.initrd.empty() && notes_.mod_start_pfn) {
      initrd_pfn_ = next;
      next += pages(request_.initrd.size());
    }
    // In one piece below the hole.
    if (next.raw >= layout_.pages() || layout_.mfn(next) - layout_.mfn(Pfn{}) != next.raw)
      return Err{fmt::format("kernel and initrd need {}, the guest has {} of memory: {}",
                             human_size(next.raw * kPageSize), human_size(ram_.size()),
                             memory_remedy(2 * next.raw * kPageSize))};
    return {};
  }

  Mfn mfn_of(Gva linear) const { return layout_.mfn(Pfn{(linear - base_) / kPageSize}); }
  Gpa gpa_of(Gva linear) const { return gpa(mfn_of(linear)).wrapping_add(linear.page_offset()); }

  void bring(Gpa to, Bytes bytes) {
    if (bytes.empty()) return;
    if (!request_.bring || !request_.bring(bytes, to)) put(ram_, to, bytes);
  }

  void load(const ElfImage& elf) {
    for (const ElfSegment& s : elf.segments) {
      const Gpa at = gpa_of(base_.wrapping_add(s.paddr.raw - offset_));
      bring(at, *slice(elf.image, s.offset, s.file_size));
      if (!request_.ram_is_zero) std::memset(ram_.host(at.wrapping_add(s.file_size)), 0, s.memory_size - s.file_size);
    }
    if (request_.initrd.empty()) return;
    bring(notes_.mod_start_pfn ? gpa(layout_.mfn(initrd_pfn_)) : gpa_of(initrd_), request_.initrd);
  }

  u64* table(Mfn mfn) { return domain_.frames().table(mfn); }

  // One entry for `linear`; tables that are missing are taken from `next` on, which are machine frames.
  void map_page(Gva linear, u64 entry, Mfn& next) {
    u64* t = table(mfn_of(tables_));
    for (unsigned shift = 39; shift > 12; shift -= 9) {
      u64& slot = t[linear.raw >> shift & 511];
      if (!(slot & pte::present)) {
        std::memset(table(next), 0, kPageSize);
        slot = gpa(next).raw | kUpper;
        ++next;
      }
      t = table(pte::mfn(slot));
    }
    t[linear.raw >> 12 & 511] = entry;
  }

  void map() {
    std::memset(table(mfn_of(tables_)), 0, kPageSize);
    Mfn next = mfn_of(tables_) + 1;
    for (Gva at = base_; at < end_; at = at.wrapping_add(kPageSize)) {
      const bool is_table = at >= tables_ && at < stack_;
      map_page(at, gpa(mfn_of(at)).raw | (is_table ? kPage & ~pte::writable : kPage), next);
    }
    // Those that were counted and not needed map nothing; they are plain pages.
    if (!notes_.init_p2m) return;
    next = layout_.mfn(p2m_pfn_) + pages(p2m_bytes_);
    for (u64 i = 0; i < pages(p2m_bytes_); i++)
      map_page(p2m_.wrapping_add(i * kPageSize), gpa(layout_.mfn(p2m_pfn_ + i)).raw | kPage, next);
  }

  void fill_p2m() {
    const Mfn first = notes_.init_p2m ? layout_.mfn(p2m_pfn_) : mfn_of(p2m_);
    u64* list = table(first);
    for (Pfn pfn; pfn.raw < layout_.pages(); ++pfn) list[pfn.raw] = layout_.mfn(pfn).raw;
  }

  void write_start_info() {
    start_info info{};
    std::strncpy(info.magic, "xen-3.0-x86_64", sizeof info.magic - 1);
    info.nr_pages = layout_.pages();
    info.shared_info = gpa(layout_.shared_info).raw;
    info.store_mfn = mfn_of(store_).raw;
    info.store_evtchn = domain_.store_port();
    info.console.domU.mfn = mfn_of(console_).raw;
    info.console.domU.evtchn = domain_.console_port();
    info.pt_base = tables_.raw;
    info.nr_pt_frames = table_pages_;
    info.mfn_list = p2m_.raw;
    if (notes_.init_p2m) {
      info.first_p2m_pfn = p2m_pfn_.raw;
      info.nr_p2m_frames = p2m_pages_;
    }
    if (!request_.initrd.empty()) {
      info.mod_start = notes_.mod_start_pfn ? initrd_pfn_.raw : initrd_.raw;
      info.mod_len = request_.initrd.size();
      if (notes_.mod_start_pfn) info.flags |= SIF_MOD_START_PFN;
    }
    std::memcpy(info.cmd_line, request_.command_line.c_str(), request_.command_line.size());
    for (const Gva page : {start_info_, store_, console_}) std::memset(ram_.host(gpa_of(page)), 0, kPageSize);
    put_value(ram_, gpa_of(start_info_), info);
  }

  // push rcx; push r11; mov eax, number; syscall; pop r11; pop rcx; ret. The one for iret leaves its frame alone.
  void write_hypercall_page() {
    if (!notes_.hypercall_page) return;
    const Gva at = *notes_.hypercall_page;
    if (at < base_ || at >= end_ || at.page_offset() != 0) return;
    u8* page = reinterpret_cast<u8*>(ram_.host(gpa_of(at)));
    std::memset(page, 0xcc, kPageSize);
    for (u32 number = 0; number < kPageSize / 32; number++) {
      u8* stub = page + number * 32u;
      u8 code[] = {0x51, 0x41, 0x53, 0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3};
      std::memcpy(code + 4, &number, 4);
      std::memcpy(stub, code, sizeof code);
      if (number != __HYPERVISOR_iret) continue;
      u8 iret[] = {0x51, 0x41, 0x53, 0x50, 0xb8, 0, 0, 0, 0, 0x0f, 0x05};
      std::memcpy(iret + 5, &number, 4);
      std::memcpy(stub, iret, sizeof iret);
    }
  }

  GuestMemory& ram_;
  para::xen::Domain& domain_;
  const Layout& layout_;
  const BootRequest& request_;
  XenNotes notes_;
  Gva base_, entry_;
  u64 offset_ = 0;
  Gva kernel_end_, initrd_, p2m_, start_info_, store_, console_, tables_, stack_, end_;
  u64 table_pages_ = 0, p2m_bytes_ = 0, p2m_pages_ = 0;
  Pfn p2m_pfn_, initrd_pfn_;
};

// The ELF file in what the user gave: a bzImage's payload, a compressed file, or the file itself.
Result<std::vector<u8>, std::string> unpacked(Bytes image, u64 most) {
  const auto payload = is_bzimage(image) ? bzimage_payload(image) : std::optional{image};
  if (!payload) return Err{std::string("its setup header does not say where the kernel proper is: give its vmlinux")};
  const packing::Bytes bytes{reinterpret_cast<const u8*>(payload->data()), payload->size()};
  const packing::Packing kind = packing::packing_of(bytes);
  if (kind == packing::Packing::none) return std::vector<u8>{};
  auto out = packing::unpack(kind, bytes, most);
  if (!out)
    return Err{fmt::format("compressed with {}, and does not unpack into {}: {}", packing::name_of(kind),
                           human_size(most), out.error())};
  return std::move(*out);
}

}  // namespace

Result<void, std::string> load_xen(GuestMemory& ram, cpu::Vcpu& boot_cpu, para::xen::Domain& domain,
                                   const BootRequest& request) {
  const std::string name = request.kernel_name.empty() ? "kernel" : request.kernel_name;
  const auto content = unpacked(request.kernel, std::min(ram.size(), kMostUnpacked));
  if (!content) return Err{fmt::format("{}: {}", name, content.error())};
  BootRequest inner = request;
  if (!content->empty()) inner.kernel = std::as_bytes(std::span{*content});
  if (!is_elf(inner.kernel))
    return Err{
        fmt::format("{}: no Xen PV guest: neither an ELF file nor a bzImage that holds one: use --para kvm", name)};
  if (auto built = Builder{ram, domain, inner}.build(boot_cpu); !built)
    return Err{fmt::format("{}: {}", name, built.error())};
  return {};
}

}  // namespace trapline::boot
