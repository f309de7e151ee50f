// From the decoded instructions of one block to host code. docs/translator.md has the conventions; in short: guest
// registers live in the host registers of the same name, but RCX in R15, and R10, R11 and R15 in the vCPU; RCX, R10 and
// R11 are scratch; nothing here touches the arithmetic flags but the guest's own instructions.
#pragma once

#include <deque>
#include <memory_resource>
#include <string>
#include <vector>

#include "engine/emit/reencode.h"
#include "engine/hostcode/block.h"
#include "engine/hostcode/host.h"
#include "engine/hostcode/memory_lowering.h"
#include "engine/hostcode/region.h"
#include "engine/hostcode/running_mode.h"
#include "engine/hostcode/string_form.h"
#include "engine/vector/op.h"

namespace trapline::engine::hostcode {

inline constexpr u8 kHost[16] = {rax, r15, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, kNone, kNone, r12, r13, r14, kNone};

inline constexpr u8 kTrap = 0xF4;  // HLT

// How one instruction is treated; decided before anything is emitted.
enum class Treatment : u8 {
  plain,     // re-encoded
  vector,    // re-encoded, needs the vector registers
  x87,       // re-encoded, needs the x87 registers
  nothing,   // NOPs, prefetches
  special,   // known by name: stack, LEA, moves to and from fixed addresses
  branch,    // near control flow
  trap,      // a fault of the host's in its place (EngineOptions::traps)
  semantic,  // calls cpu::Semantic
  unit,      // calls the vector unit
  step,      // left to the interpreter
};

struct TranslatedInsn {
  TranslatedInsn() {}  // `raw` is large, and written anyway
  isa::Insn insn;
  Decoded raw;
  Treatment treatment = Treatment::step;
  cpu::Semantic semantic = nullptr;
  VectorOp vector;
  bool ends = false;  // nobody goes on behind it
  bool last = false;  // what comes behind it is another block's
  u16 at = 0;         // from the block's start
  bool vector_is(vector::Kind kind) const { return vector.kind == static_cast<u8>(kind); }
  bool has_elements() const { return vector_is(vector::Kind::gather) || vector_is(vector::Kind::scatter); }
  SharedLookup memory, stack;  // the look-ups of its explicit operand and of the stack
};

// What the code of a block may rely on; part of its key.
struct Context {
  bool bits64 = true;
  bool fs_flat = true, gs_flat = true;
  Gva start, page;      // its first byte and its page
  Gva page2 = kNoPage;  // into which its first instruction crosses
  static constexpr Gva kNoPage{~u64{0}};
  u8 tag = 0;  // of its mode, in the jump cache
  View view = View::kernel;
  RunningMode turned;  // what STAC or CLAC leads to; with kTags as its tag, they are C++'s
  bool ring0 = false;
  bool fsgsbase = true;  // CR4's
  bool counted = true;
  bool stable = false;   // may be linked to other stable pages
  bool movable = false;  // note what another linear address would change
};

// Units whose use needs no check while the key holds.
struct Ready {
  bool sse = false, avx = false, avx512 = false, x87 = false;
};

struct Thunks {
  u64 call = 0;      // r11: ExitStub*
  u64 load_vec = 0;  // r11: where to go on
  u64 gathered = 0;  // to state.hit, as if the look-up had found state.addend
  u64 cpuid = 0;     // r11: ExitStub* of a CPUID
  u64 indirect =
      0;  // r11: ExitStub*, r10: the target, rcx: that plus the mode's tag; a call, if it is displaced nowhere
};

class Lowering {
 public:
  Lowering(cpu::Vcpu& cpu, State& state, const HostWays& ways, Emitter& out, Emitter& cold, const Thunks& thunks,
           MemoryLowering& memory, std::pmr::deque<ExitStub>& sites, std::pmr::deque<Called>& called, Draft& draft)
      : cpu_{cpu},
        state_{state},
        ways_{ways},
        e_{out},
        c_{cold},
        thunks_{thunks},
        memory_{memory},
        sites_{sites},
        called_{called},
        draft_{draft} {}

  // Emits the block at the emitters' places. `block` has key and count; places in host code are filled in.
  // False: it came out too long for its jumps. `island_margin`: bytes by which islands() comes too early.
  bool block(Block& block, const Context& context, const std::vector<TranslatedInsn>& pieces, u32 island_margin);

  // -- For MemoryLowering
  struct Cold {  // a jump to the code behind the block: a call, or a tail
    static constexpr u32 kNoTail = ~u32{0};
    Emitter::Far jump = {};
    ExitStub* site = nullptr;
    Place place = {};  // of a load
    u32 tail = kNoTail;
  };
  Emitter& hot() { return e_; }
  Emitter& cold() { return c_; }
  // Before code of `ahead` bytes at the most: islands of jumps go here if one of them would come out of reach.
  void islands(u32 ahead);
  void jump_cold_if_rcx_0(const Cold& c);
  // In cold code: back to the address `to` of the block, and into C++ or the thunk that may spare that.
  void jump_hot(u64 to);
  void call_site(ExitStub& s, const Place& place);

 private:
  struct Taken {  // a conditional branch's way out
    Emitter::Far jump;
    u64 target, from;
    u16 uncounted, before;
  };

  void copy_store(ExitStub& s, const Place& place);
  ExitStub& site(ExitStub::Kind kind, const TranslatedInsn* piece);
  void to_cold(Emitter::Far jump, const Cold& c);
  void from_cold(Emitter::Far jump, u64 to);
  void link_from(Emitter::Far jump, ExitStub& s);
  ExitStub& called_site(const TranslatedInsn& p, ExitStub::Kind kind);
  void jump_cold(ExitStub& s);
  void flush_islands();
  void head();
  void insn(const TranslatedInsn& p);
  void count_sensitive(const TranslatedInsn& p);
  struct Rewrite;
  bool plain(const TranslatedInsn& p);
  void rewrite_memory(const TranslatedInsn& p, Rewrite& w);
  void rewrite_lea(const TranslatedInsn& p, Rewrite& w);
  bool rewrite_registers(const Decoded& d, Rewrite& w);
  bool stand_in(Rewrite& w, u8 guest, bool high8, bool written, u8* host);
  void write_back(const Rewrite& w);
  void bring_vectors();
  static bool is_mxcsr_load(const TranslatedInsn& p);
  void load_mxcsr(const TranslatedInsn& p);
  void bring_x87();
  void call_out(const TranslatedInsn& p, ExitStub::Kind kind);
  void step(const TranslatedInsn& p);
  void trap(const TranslatedInsn& p);
  void branch(const TranslatedInsn& p);
  void jump_or_call(const TranslatedInsn& p);
  void ret(const TranslatedInsn& p);
  void loop(const TranslatedInsn& p);
  void jump_if_rcx_0(const TranslatedInsn& p);
  void jcc(const TranslatedInsn& p);
  void take(const TranslatedInsn& p, Emitter::Far jump);
  void special(const TranslatedInsn& p);
  void push(const TranslatedInsn& p);
  void pop(const TranslatedInsn& p);
  void leave(const TranslatedInsn& p);
  void enter(const TranslatedInsn& p);
  void move_offset(const TranslatedInsn& p);
  void move_selector(const TranslatedInsn& p);
  void push_flags(const TranslatedInsn& p);
  void pop_flags(const TranslatedInsn& p);
  void xlat(const TranslatedInsn& p);
  void bit_string(const TranslatedInsn& p);
  Mem linear_access(const TranslatedInsn& p, u64 start, unsigned size, bool write);
  void pop_to_memory(const TranslatedInsn& p);
  Mem string_access(const TranslatedInsn& p, u8 guest, unsigned size, bool write);
  void string_once(const TranslatedInsn& p, const StringForm& form);
  void set_interrupts(const TranslatedInsn& p);
  void set_access(const TranslatedInsn& p);
  void set_direction(bool down);
  void swap_gs();
  void read_tsc(const TranslatedInsn& p);
  void segment_base(const TranslatedInsn& p);
  void read_xcr0(const TranslatedInsn& p);
  void identify(const TranslatedInsn& p);
  void each_element(const TranslatedInsn& p);
  void masked_bytes(const TranslatedInsn& p);
  void read_descriptor(const TranslatedInsn& p);
  void store_environment(const TranslatedInsn& p);
  void load_environment(const TranslatedInsn& p);
  void pause(const TranslatedInsn& p);
  void note_x87(const TranslatedInsn& p);
  void store_fdp(const TranslatedInsn& p);
  void test_x87_masks();
  void load_x87_control(const TranslatedInsn& p);
  bool last_x87() const;
  const std::vector<TranslatedInsn>* pieces_ = nullptr;
  void linear(u8 reg, u64 value);
  Place constant_place(u64 address, bool linear);
  Place place_of(const TranslatedInsn& p);
  Place stack_place(i32 disp);
  void high_byte(u8 to, u8 from);
  Mem reach(const Place& place, unsigned size, bool write, const SharedLookup& share, ExitStub& s);
  Mem memory_access(const TranslatedInsn& p, unsigned size, bool write);
  Mem below_rsp_access(const TranslatedInsn& p, i32 disp, unsigned size, const SharedLookup& share);
  Mem stack_access(const TranslatedInsn& p, bool push, unsigned size);
  bool linkable(u64 target) const;
  void push_return(const TranslatedInsn& p);
  void move_rsp(i32 by);
  void exit_to(u64 target, u64 from, u16 uncounted, u16 before, bool turned = false);
  void jump_indirect(i8 undo_rsp, const TranslatedInsn& p);
  void poll(u64 target, u16 before);
  void look_at_attention(ExitStub& s);
  void finish();
  u64 next_of(const TranslatedInsn& p) const { return (block_->key.linear.raw + p.at + p.insn.length) & mask(); }
  u64 mask() const { return context_.bits64 ? ~u64{0} : 0xffffffff; }
  u8 stack_bytes() const { return context_.bits64 ? 8 : 4; }
  u8 host_or_load(u8 guest, u8 scratch);
  Mem gpr(u8 guest) const { return var(&cpu_.gpr[guest]); }

  cpu::Vcpu& cpu_;
  State& state_;
  const HostWays ways_;
  Emitter& e_;  // what is run
  Emitter& c_;  // what is seldom run
  const Thunks& thunks_;
  MemoryLowering& memory_;
  std::pmr::deque<ExitStub>& sites_;
  std::pmr::deque<Called>& called_;
  Draft& draft_;
  Block* block_ = nullptr;
  Context context_;
  u16 index_ = 0;  // of the instruction under way
  u8 popped_ = 0;  // bytes by which RSP is behind, where addresses are by RSP
  u32 island_margin_ = 0;
  bool ended_ = false, failed_ = false;
  std::vector<std::pair<Cold, Emitter::Near>> pending_;  // JRCXZs that have no target yet
  std::vector<Cold> cold_;
  std::vector<Taken> taken_;
};

}  // namespace trapline::engine::hostcode
