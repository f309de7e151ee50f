#include "engine/host_space.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "base/growing_memory.h"

namespace trapline::engine {

Result<HostSpace, u32> HostSpace::reserve(u32 vcpus, u64 structure, const SpaceNeeds& needs, int code_fd) {
  HostSpace space;
  structure = (structure + kPageSize - 1) & kPageMask;
  const u64 stride = (structure + needs.near + kHugePage - 1) & ~(kHugePage - 1);
  space.block_ = reserve_huge(stride * vcpus, PROT_NONE);
  if (!space.block_) return Err{u32{0}};
  space.block_bytes_ = stride * vcpus;
  space.far_bytes_ = needs.far;
  if (code_fd >= 0 && ftruncate(code_fd, static_cast<off_t>(vcpus * needs.code)) != 0) code_fd = -1;
  for (u32 i = 0; i < vcpus; i++) {
    u8* const at = static_cast<u8*>(space.block_) + i * stride;
    if (mprotect(at, structure, PROT_READ | PROT_WRITE) != 0) return Err{i};
    VcpuSpace v{at, at + structure, nullptr, {code_fd, i * needs.code}};
    if (needs.far && !(v.far = reserve_huge(needs.far, PROT_READ | PROT_WRITE))) return Err{i};
    space.vcpus_.push_back(v);
  }
  return space;
}

void HostSpace::release() {
  for (const VcpuSpace& v : vcpus_)
    if (v.far) munmap(v.far, far_bytes_);
  if (block_) munmap(block_, block_bytes_);
  vcpus_.clear();
  block_ = nullptr;
}

HostSpace::~HostSpace() { release(); }

HostSpace& HostSpace::operator=(HostSpace&& other) noexcept {
  release();
  block_ = std::exchange(other.block_, nullptr);
  block_bytes_ = other.block_bytes_, far_bytes_ = other.far_bytes_;
  vcpus_ = std::exchange(other.vcpus_, {});
  return *this;
}

}  // namespace trapline::engine
