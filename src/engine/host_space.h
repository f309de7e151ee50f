// Address space for all vCPUs of a VM, taken at once and before anything else, so that where the heap and the libraries
// lie cannot decide whether a VM starts. Of each vCPU: its structure, room for code that reaches the structure's fields
// by 32-bit displacements, and room for tables anywhere. Nothing of it is memory until it is used.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace trapline::engine {

// An engine's address space for one vCPU, in bytes; multiples of the page size.
struct SpaceNeeds {
  u64 near = 0;  // behind the structure, within reach of it: inaccessible until mapped over
  u64 far = 0;   // anywhere: readable, writable, never backed in advance
  u64 code = 0;  // of `file`: the part of `near` that is code
};

// Where a file has a vCPU's code.
struct CodeFile {
  int fd = -1;  // -1: none
  u64 offset = 0;
};

// One vCPU's part. Null pointers: the engine finds places itself (tests, the fuzzer).
struct VcpuSpace {
  void* structure = nullptr;
  void* near = nullptr;
  void* far = nullptr;
  CodeFile code = {};
};

class HostSpace {
 public:
  HostSpace() = default;
  // `structure`: bytes of what holds the vCPU; its memory is ready. `code_fd`: a file for the code, which gets its size
  // here and must stay open until the code is mapped; -1: none. Error: for how many vCPUs there is room.
  static Result<HostSpace, u32> reserve(u32 vcpus, u64 structure, const SpaceNeeds& needs, int code_fd = -1);
  ~HostSpace();
  HostSpace(HostSpace&& other) noexcept { *this = std::move(other); }
  HostSpace& operator=(HostSpace&& other) noexcept;

  const VcpuSpace& operator[](u32 vcpu) const { return vcpus_[vcpu]; }

 private:
  void release();
  void* block_ = nullptr;  // structures and what is near them
  u64 block_bytes_ = 0, far_bytes_ = 0;
  std::vector<VcpuSpace> vcpus_;
};

}  // namespace trapline::engine
