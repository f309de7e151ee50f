#include "engine/hostcode/region.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cpuid.h>

#include <cstring>
#include <new>

#include "base/invariant.h"
#include "engine/common/code_names.h"

namespace trapline::engine::hostcode {

namespace {

constexpr u64 kStateBytes = kPageSize;
static_assert(sizeof(State) <= kStateBytes);
constexpr u64 kReach = u64{1} << 30;  // half of what a displacement spans: room for both ends

// Address space of `bytes` within reach of `near`, or null.
void* reserve_near(u64 near, u64 bytes) {
  const u64 step = 8 * MiB;
  const u64 middle = near & ~(step - 1);
  for (u64 distance = step; distance < kReach; distance += step) {
    for (const u64 at : {middle + distance, middle - distance - bytes}) {
      if (at < 64 * KiB || at >> 47) continue;
      void* p = mmap(reinterpret_cast<void*>(at & kPageMask), bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
      if (p == MAP_FAILED) continue;
      if (reinterpret_cast<u64>(p) == (at & kPageMask)) return p;
      munmap(p, bytes);  // a kernel that takes the address as a hint
    }
  }
  return nullptr;
}

}  // namespace

// A page for State, then the code from a multiple of a huge page on.
bool Region::take_space(u64 near, void* space, u64 code_bytes) {
  INVARIANT(code_bytes % kHugePage == 0, "{} bytes of code are no huge pages", code_bytes);
  bytes_ = code_bytes;
  own_ = !space;
  space_ = space ? space : reserve_near(near, bytes_for(code_bytes));
  if (!space_) return false;
  exec_ = (reinterpret_cast<u64>(space_) + kStateBytes + kHugePage - 1) & ~(kHugePage - 1);
  state_ = reinterpret_cast<void*>(exec_ - kStateBytes);
  if (mmap(state_, kStateBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
    return false;
  new (state_) State;
  return true;
}

std::unique_ptr<Region> Region::make(u64 near, void* space, u64 code_bytes, const CodeFile& file) {
  std::unique_ptr<Region> r{new Region};
  if (!r->take_space(near, space, code_bytes)) return nullptr;
  if (code_names) return r->map_anonymous() ? std::move(r) : nullptr;
  const bool given = file.fd >= 0;
  const int fd = given ? file.fd : memfd_create("translated-code", MFD_CLOEXEC);
  const auto offset = static_cast<off_t>(given ? file.offset : 0);
  bool good = fd >= 0 && (given || ftruncate(fd, static_cast<off_t>(code_bytes)) == 0);
  if (good && (r->write_ = static_cast<u8*>(reserve_huge(code_bytes, PROT_NONE)))) {
    good = mmap(r->write_, code_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, offset) != MAP_FAILED &&
           mmap(reinterpret_cast<void*>(r->exec_), code_bytes, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd,
                offset) != MAP_FAILED;
    if (given) madvise(r->write_, code_bytes, MADV_HUGEPAGE);
  }
  if (!given && fd >= 0) close(fd);
  return good && r->write_ ? std::move(r) : nullptr;
}

// For perf, which looks into its map for code in anonymous memory only. A shared mapping can be had a second time.
bool Region::map_anonymous() {
  void* write = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (write == MAP_FAILED) return false;
  write_ = static_cast<u8*>(write);
  void* const exec = reinterpret_cast<void*>(exec_);
  return mremap(write, 0, bytes_, MREMAP_MAYMOVE | MREMAP_FIXED, exec) != MAP_FAILED &&
         mprotect(exec, bytes_, PROT_READ | PROT_EXEC) == 0;
}

Region::~Region() {
  if (space_ && own_) munmap(space_, bytes_for(bytes_));
  // Reserved again, for whoever has lent it.
  if (space_ && !own_)
    (void)mmap(space_, bytes_for(bytes_), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (write_) munmap(write_, bytes_);
}

bool Region::add(std::span<const u8> code, std::span<const u8> cold) {
  const u64 half = bytes_ / 2;
  if (code.size() + 64 > half - used_ || cold.size() + 64 > half - used_cold_) return false;
  std::memcpy(write_ + used_, code.data(), code.size());
  const u64 end = (used_ + code.size() + 15) & ~u64{15};
  std::memset(write_ + used_ + code.size(), 0xCC, end - used_ - code.size());
  used_ = end;
  if (!cold.empty()) std::memcpy(write_ + half + used_cold_, cold.data(), cold.size());
  used_cold_ += cold.size();
  return true;
}

void Region::reset(u64 used) {
  INVARIANT(used <= used_, "{} of {} bytes of code are to stay", used, used_);
  used_ = used, used_cold_ = 0, changed_ = true;
}

// One store, if it lies in one cache line: whoever fetches the old value does what was right until now.
void Region::patch32(u64 address, u32 value) {
  INVARIANT(holds(address) && holds(address + 3), "a link at {:#x} is no code", address);
  changed_ |= (address & 63) > 60;
  std::memcpy(write_ + (address - exec_), &value, 4);
}

u32 Region::read32(u64 address) const {
  INVARIANT(holds(address) && holds(address + 3), "a link at {:#x} is no code", address);
  u32 value;
  std::memcpy(&value, write_ + (address - exec_), 4);
  return value;
}

void Region::patch(u64 address, std::span<const u8> code) {
  INVARIANT(holds(address) && bytes_ - (address - exec_) >= code.size(), "{} bytes at {:#x} are no code", code.size(),
            address);
  changed_ = true;
  std::memcpy(write_ + (address - exec_), code.data(), code.size());
}

void Region::synchronize() {
  if (!changed_) return;
  changed_ = false;
  static const bool has_serialize = [] {
    u32 a, b, c, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 14);
  }();
  if (has_serialize) {
    asm volatile(".byte 0x0f, 0x01, 0xe8" : : : "memory");
    return;
  }
  // IRET serializes too, and does not leave a virtual machine as CPUID does.
  u64 scratch;
  asm volatile(
      "leaq -128(%%rsp), %%rsp\n\t"
      "movl %%ss, %k0\n\t"
      "pushq %0\n\t"
      "pushq %%rsp\n\t"
      "addq $8, (%%rsp)\n\t"
      "pushfq\n\t"
      "movl %%cs, %k0\n\t"
      "pushq %0\n\t"
      "leaq 1f(%%rip), %0\n\t"
      "pushq %0\n\t"
      "iretq\n"
      "1:\n\t"
      "leaq 128(%%rsp), %%rsp"
      : "=&r"(scratch)
      :
      : "memory", "cc");
}

bool Region::reaches(u64 address) const {
  const u64 far = 2 * GiB - MiB;
  return address - (exec_ - kStateBytes) + far < 2 * far && address - (exec_ + bytes_) + far < 2 * far;
}

}  // namespace trapline::engine::hostcode
