#include "engine/hostcode/region.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cpuid.h>

#include <cstring>
#include <new>

#include "engine/common/code_names.h"

namespace trapline::engine::hostcode {

namespace {

constexpr u64 kStateBytes = kPageSize;
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

std::unique_ptr<Region> Region::make(u64 near, void* space, u64 code_bytes) {
  std::unique_ptr<Region> r{new Region};
  if (code_names) return make_anonymous(std::move(r), near, space, code_bytes);
  const int fd = memfd_create("translated-code", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(code_bytes)) != 0) {
    if (fd >= 0) close(fd);
    return nullptr;
  }
  void* place = space ? space : reserve_near(near, kStateBytes + code_bytes);
  r->own_ = !space;
  void* write = mmap(nullptr, code_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  bool good = place && write != MAP_FAILED;
  if (good) {
    u8* exec = static_cast<u8*>(place) + kStateBytes;
    good = mmap(place, kStateBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
               MAP_FAILED &&
           mmap(exec, code_bytes, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
    r->exec_ = reinterpret_cast<u64>(exec);
  }
  close(fd);
  r->state_ = place;
  r->write_ = write == MAP_FAILED ? nullptr : static_cast<u8*>(write);
  r->bytes_ = code_bytes;
  if (!good) return nullptr;
  new (place) State;
  return r;
}

// For perf, which looks into its map for code in anonymous memory only. A shared mapping can be had a second time.
std::unique_ptr<Region> Region::make_anonymous(std::unique_ptr<Region> r, u64 near, void* space, u64 code_bytes) {
  void* place = space ? space : reserve_near(near, kStateBytes + code_bytes);
  r->own_ = !space;
  void* write = mmap(nullptr, code_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  r->state_ = place;
  r->write_ = write == MAP_FAILED ? nullptr : static_cast<u8*>(write);
  r->bytes_ = code_bytes;
  if (!place || write == MAP_FAILED) return nullptr;
  u8* exec = static_cast<u8*>(place) + kStateBytes;
  r->exec_ = reinterpret_cast<u64>(exec);
  if (mmap(place, kStateBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ||
      mremap(write, 0, code_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, exec) == MAP_FAILED ||
      mprotect(exec, code_bytes, PROT_READ | PROT_EXEC) != 0)
    return nullptr;
  new (place) State;
  return r;
}

Region::~Region() {
  if (state_ && own_) munmap(state_, kStateBytes + bytes_);
  // Reserved again, for whoever has lent it.
  if (state_ && !own_)
    mmap(state_, kStateBytes + bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
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

// One store, if it lies in one cache line: whoever fetches the old value does what was right until now.
void Region::patch32(u64 address, u32 value) {
  changed_ |= (address & 63) > 60;
  std::memcpy(write_ + (address - exec_), &value, 4);
}

void Region::patch(u64 address, std::span<const u8> code) {
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
