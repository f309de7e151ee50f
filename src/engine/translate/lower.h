// From the decoded instructions of one block to host code. docs/translator.md has the conventions; in short: guest
// registers live in the host registers of the same name, but RCX in R15, and R10, R11 and R15 in the vCPU; RCX, R10 and
// R11 are scratch; nothing here touches the arithmetic flags but the guest's own instructions.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "engine/translate/block.h"
#include "engine/translate/reencode.h"
#include "engine/translate/region.h"
#include "engine/translate/strings.h"

namespace trapline::engine::translate {

inline constexpr u8 kHost[16] = {rax, r15, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, kNone, kNone, r12, r13, r14, kNone};

// How one instruction is treated; decided before anything is emitted.
enum class Treatment : u8 {
  plain,     // re-encoded
  vector,    // re-encoded, needs the vector registers
  x87,       // re-encoded, needs the x87 registers
  nothing,   // NOPs, prefetches
  special,   // known by name: stack, LEA, moves to and from fixed addresses
  branch,    // near control flow
  semantic,  // calls cpu::Semantic
  unit,      // calls the vector unit
  step,      // left to the interpreter
};

struct Piece {
  Piece() {}  // `raw` is large, and written anyway
  isa::Insn insn;
  vector::Decoded raw;
  Treatment treatment = Treatment::step;
  cpu::Semantic semantic = nullptr;
  VectorOp vector;
  bool ends = false;
  u16 at = 0;           // from the block's start
  Share memory, stack;  // the look-ups of its explicit operand and of the stack
};

// What the code of a block may rely on; part of its key.
struct Context {
  bool bits64 = true;
  bool fs_flat = true, gs_flat = true;
  u64 start = 0, page = 0;  // linear addresses of its first byte and of its page
  u64 page2 = kOnePage;     // of the page into which its first instruction crosses
  u8 tag = 0;               // of its mode, in the jump cache
  bool ring0 = false;
  bool counted = true;
  bool stable = false;   // may be linked to other stable pages
  bool movable = false;  // note what another linear address would change
};

struct Thunks {
  u64 call = 0;      // r11: Site*
  u64 load_vec = 0;  // r11: where to go on
  u64 gathered = 0;  // to state.hit, as if the look-up had found state.addend
  // r11: Site* of a load of up to 8, 16, 32, 64 bytes at rcx, which may lie in two pages that have slots; else a call
  u64 gather[4] = {};
  u64 indirect = 0;  // r11: Site*, r10: the target, rcx: that plus the mode's tag; a call, if it is displaced nowhere
  StringThunks strings;
};

class Lowering {
 public:
  Lowering(cpu::Vcpu& cpu, State& state, Emitter& out, Emitter& cold, const Thunks& thunks, std::deque<Site>& sites,
           std::deque<Called>& called, Draft& draft)
      : cpu_{cpu}, state_{state}, e_{out}, c_{cold}, thunks_{thunks}, sites_{sites}, called_{called}, draft_{draft} {}

  // Emits the block at the emitters' places. `block` has key and count; places in host code are filled in.
  // False: it came out too long for its jumps. `island_margin`: bytes by which islands() comes too early.
  bool block(Block& block, const Context& context, const std::vector<Piece>& pieces, u32 island_margin);

 private:
  // A guest address: base + disp, or a constant (in R10 as the base, or, without a base, in disp).
  struct Place {
    u8 base = kNone;
    i32 disp = 0;
    bool constant = false;
    bool linear = false;  // a constant that moves with the code
    u64 address = 0;
  };
  struct Retry {  // a look-up of its own for an access whose shared one has failed
    Place place;
    unsigned size;
    bool write;
    Site* site;
    u64 back;  // goes on here when it finds the slot
  };
  struct Cold {  // a jump (32-bit displacement at `at`) to the code behind the block
    u32 at;
    Site* site;
    Retry* retry;
    Place place;  // of a load
  };
  struct Taken {  // a conditional branch's way out
    u32 at;
    u64 target, from;
    u16 uncounted, before;
  };

  Site& site(Site::Kind kind, const Piece* piece);
  void cold_target(const Cold& c);
  Site& called_site(const Piece& p, Site::Kind kind);
  void jump_cold(Site& s);
  void jump_cold_if_rcx_0(const Cold& c);
  void flush_islands();
  void islands(u32 ahead);
  static u32 look_up_bytes();
  void head();
  void insn(const Piece& p);
  bool plain(const Piece& p);
  void call_out(const Piece& p, Site::Kind kind);
  void step(const Piece& p);
  void branch(const Piece& p);
  void special(const Piece& p);
  void push(const Piece& p);
  void pop(const Piece& p);
  void leave(const Piece& p);
  void move_offset(const Piece& p);
  void move_selector(const Piece& p);
  void push_flags(const Piece& p);
  void xlat(const Piece& p);
  void bit_string(const Piece& p);
  Mem linear_access(const Piece& p, u64 start, unsigned size, bool write);
  void pop_to_memory(const Piece& p);
  Mem string_access(const Piece& p, u8 guest, unsigned size, bool write);
  void string_once(const Piece& p, const StringForm& form);
  void set_interrupts(const Piece& p);
  void set_direction(bool down);
  void swap_gs();
  void pause(const Piece& p);
  void note_x87(const Piece& p);
  void store_fdp(const Piece& p);
  bool last_x87() const;
  const std::vector<Piece>* pieces_ = nullptr;
  void linear(u8 reg, u64 value);
  Place constant_place(u64 address, bool linear);
  Place place_of(const Piece& p);
  Place stack_place(i32 disp);
  static Mem reached(const Place& p);
  void high_byte(u8 to, u8 from);
  void page_sum(Emitter& e, u8 first, unsigned size);
  Mem table_slot(Emitter& e, Mem offset, u8 free);
  void look_up(Emitter& e, u8 base, i32 disp, unsigned size, bool write);
  void look_up_constant(const Place& place, unsigned size, bool write);
  void reach(const Place& place, unsigned size, bool write, const Share& share, Site& s);
  void finish_retry(const Retry& r);
  Mem memory_access(const Piece& p, unsigned size, bool write);
  Mem stack_access(const Piece& p, bool push, unsigned size);
  bool linkable(u64 target) const;
  void push_return(const Piece& p);
  void move_rsp(i32 by);
  void exit_to(u64 target, u64 from, u16 uncounted, u16 before);
  void jump_indirect(i8 undo_rsp, const Piece& p);
  void poll(u64 target, u16 before);
  void look_at_attention(Site& s);
  void finish();
  u64 thunk_of(const Site& s) const;
  void call_site(const Site& s, const Place& place);
  u64 next_of(const Piece& p) const { return (block_->key.linear + p.at + p.insn.length) & mask(); }
  u64 mask() const { return context_.bits64 ? ~u64{0} : 0xffffffff; }
  u8 stack_bytes() const { return context_.bits64 ? 8 : 4; }
  u8 host_or_load(u8 guest, u8 scratch);
  Mem gpr(u8 guest) const { return var(&cpu_.gpr[guest]); }

  cpu::Vcpu& cpu_;
  State& state_;
  Emitter& e_;  // what is run
  Emitter& c_;  // what is seldom run
  const Thunks& thunks_;
  std::deque<Site>& sites_;
  std::deque<Called>& called_;
  Draft& draft_;
  Block* block_ = nullptr;
  Context context_;
  u16 index_ = 0;  // of the instruction under way
  u8 popped_ = 0;  // bytes by which RSP is behind, where addresses are by RSP
  u32 island_margin_ = 0;
  bool ended_ = false, failed_ = false;
  static constexpr u8 kJrcxz = 0xE3;
  std::vector<Cold> pending_;  // JRCXZs, with displacements of 8 bits, that have no target yet
  std::vector<Cold> cold_;
  std::deque<Retry> retries_;
  std::vector<Taken> taken_;
};

}  // namespace trapline::engine::translate
