// The memory of one translator: host code, W^X by two mappings, with the few words that this code reads and writes
// beside it and within reach of RIP-relative operands. Placed within 2 GiB of the vCPU, whose fields the code uses.
#pragma once

#include <memory>
#include <span>

#include "base/growing_memory.h"
#include "base/types.h"
#include "engine/host_space.h"
#include "engine/hostcode/jump_cache.h"
#include "engine/hostcode/memory_lowering.h"
#include "engine/hostcode/resume.h"
#include "engine/hostcode/running_mode.h"

namespace trapline::engine::hostcode {

// An answer of CPUID, and the vCPU's state that it relies on.
struct CpuidAnswer {
  u32 leaf = 0, subleaf = 0, subleaf_mask = 0;  // 0: whatever ECX was
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
  u64 cr4 = ~u64{0}, xcr0 = 0, xss = 0, apic_base = 0;  // at first, of no vCPU
};

struct State {
  u64 host_rsp = 0;
  u64 left = 0;  // kLeftBias + instructions of the budget; a block subtracts its own at its head
  static constexpr u64 kPauses = 256;
  u64 pauses = kPauses;  // PAUSEs until the next one is for C++
  u64 vec_live = 0;      // the guest's vector registers and MXCSR are in the host's
  u64 t0 = 0;            // r10 at the call
  u64 tmp = 0;
  u64 target = 0;
  u64 below_rsp = 0;                  // what the last indirect CALL has overwritten, where that may have to come back
  u64 hit = 0, addend = 0;            // where a load over the end of a page goes on, and what its look-up has found
  alignas(64) u8 gathered[128] = {};  // the bytes that it loads
  u64 scatter_from = 0;               // of a store over the end of a page: where its bytes are meanwhile,
  u64 scatter_to[2] = {}, scatter_bytes[2] = {};  // and where they belong
  u64 saved_rax = 0, saved_rdx = 0;               // of a thunk under way
  u16 saved_flags = 0;
  u64 borrowed[5] = {};
  u32 environment[7] = {}, new_environment[7] = {};  // of the host's x87 unit; the pointers of the latter stay 0
  static constexpr u32 kCpuidAnswers = 16;
  CpuidAnswer cpuid[kCpuidAnswers];
  const u64* apic_base = nullptr;  // of who has filled them in
  // Of a gather or scatter (lower_elements.cpp).
  struct Elements {
    alignas(64) u8 index[64] = {};
    u8 data[64] = {};
    u64 to[16] = {};  // of a scatter: host addresses
    u64 active = 0;   // a bit for each element
    u64 exist = 0;
  } elements;
  u64 trap_pc = 0, trap_rsp = 0;  // where a signal came, and the guest's RSP then
  u64 resumed_pc = 0;             // where resume_by_hand() went last
  ResumeFrame resume;
  // Constants for instructions that take them from memory.
  u64 page_bits = 0, jump_bits = 0;
  const Victim* victims = nullptr;  // of the current view
  u64 tables = 0;                   // base of the current view's
  RunningMode now;
  u64 write_table = 0;  // from what GS has, or from 0 where GS has nothing
  u64 last_page = 0;    // of the look-up under way, where there is no PEXT
  u32 host_mxcsr = 0x1f80;
  u64 shared[SharedLookup::kSlots] = {};  // what shared look-ups have found
};
inline constexpr u64 kCodeBytes = 64 * MiB;  // of a vCPU
inline constexpr u64 kLeftBias = u64{1} << 62;

class Region {
 public:
  // For `code_bytes` of code, a multiple of 2 MiB. `space`: reserved for it (bytes_for), and stays so; null: takes some
  // near the address `near`. `file` may have huge pages: the code lies so that they can be mapped. Null: no room.
  static std::unique_ptr<Region> make(u64 near, void* space, u64 code_bytes, const CodeFile& file = {});
  static constexpr u64 bytes_for(u64 code_bytes) { return kHugePage + code_bytes; }
  ~Region();
  Region(const Region&) = delete;

  State& state() { return *static_cast<State*>(state_); }
  // Where the next code goes, and its seldom-run part: kept apart, so that caches hold more of the rest.
  u64 next() const { return exec_ + used_; }
  u64 next_cold() const { return exec_ + bytes_ / 2 + used_cold_; }
  bool add(std::span<const u8> code, std::span<const u8> cold);  // there; false: full
  void patch32(u64 address, u32 value);
  u32 read32(u64 address) const;
  void patch(u64 address, std::span<const u8> code);
  // After changes of code that may have been executed: makes this thread see them (SDM Vol. 3A 8.1.3: they came by
  // another linear address).
  void synchronize();
  u64 used() const { return used_; }
  void reset(u64 used);  // what came first stays
  bool holds(u64 address) const { return address - exec_ < bytes_; }
  // Is it code that executes guest instructions? Not the thunks (the first `thunks` bytes), not what is seldom run.
  bool holds_hot(u64 address, u64 thunks) const { return address - exec_ - thunks < bytes_ / 2 - thunks; }
  bool reaches(u64 address) const;

 private:
  Region() = default;
  bool take_space(u64 near, void* space, u64 code_bytes);
  bool map_anonymous();
  void* space_ = nullptr;
  bool own_ = false;  // the place of it
  void* state_ = nullptr;
  u8* write_ = nullptr;
  u64 exec_ = 0, bytes_ = 0, used_ = 0, used_cold_ = 0;
  bool changed_ = false;
};

}  // namespace trapline::engine::hostcode
