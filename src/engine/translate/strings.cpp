#include "engine/translate/strings.h"

#include <cstddef>
#include <vector>

#include "engine/hostcode/block.h"
#include "engine/hostcode/region.h"
#include "engine/hostcode/thunks.h"

namespace trapline::engine::translate {

using namespace hostcode;

namespace {

class Writer {
 public:
  Writer(Emitter& e, cpu::Vcpu& cpu, State& state, const HostWays& ways, StringForm form, bool bits64)
      : e_{e}, cpu_{cpu}, state_{state}, ways_{ways}, form_{form}, bits64_{bits64} {}

  void write(u64 call) {
    save();
    e_.op(0, true, 0x81, 7, rcx);  // CMP
    e_.imm32(StringThunks::kMostBytes >> form_.size_log2);
    slow_if(kAbove);
    e_.op(0, false, 0xF7, 0, var(&cpu_.sys_flags), 4);  // TEST
    e_.imm32(cpu::flag::df);
    slow_if(kNotZero);
    if (form_.reads_source()) look_up(rax, rsi, false);
    if (form_.has_destination()) look_up(rdx, rdi, !form_.compares());
    if (form_.op == StringOp::lods)
      load_last();
    else
      repeat();
    restore(!form_.compares());
    leave();
    for (const u32 at : slow_) land(e_, at);
    restore(true);
    e_.jmp(call);
  }

 private:
  void slow_if(Condition c) { slow_.push_back(forward(e_, c)); }

  void save() {
    e_.store(var(&state_.saved_rax), rax);
    e_.store(var(&state_.saved_rdx), rdx);
    save_flags(e_, state_.saved_flags);
  }
  void restore(bool flags) {
    if (flags) restore_flags(e_, state_.saved_flags);
    e_.load(rax, var(&state_.saved_rax));
    e_.load(rdx, var(&state_.saved_rdx));
  }
  void leave() { e_.jmp_mem(at(r11, offsetof(ExitStub, resume))); }

  // `to`: what to add to `first` for the host's address of its RCX elements, which lie in one page.
  void look_up(u8 to, u8 first, bool write) {
    constexpr u8 kUp = 16, kDown = 28;
    e_.mov(to, first);
    shift(4, to, kUp);
    if (bits64_) {  // a look-up finds the entry of the canonical address
      e_.mov(r10, to);
      shift(7, r10, kUp);
      e_.op(0, true, 0x3B, r10, first);  // CMP
      slow_if(kNotZero);
    } else {  // what the mode does not see must be 0
      e_.mov32(r10, first);
      e_.op(0, true, 0x3B, r10, first);  // CMP
      slow_if(kNotZero);
    }
    shift(5, to, kDown);
    e_.lea(r10, at(first, rcx, form_.size_log2, -1));
    shift(4, r10, kUp);
    shift(5, r10, kDown);
    e_.op(0, true, 0x03, to, r10);  // ADD
    Mem slot = at(kNone, to, 3);
    if (write || !ways_.gs_base) {
      e_.load(r10, var(write ? &state_.write_table : &state_.tables));
      slot = at(r10, to, 3);
    }
    slot.gs = ways_.gs_base;
    e_.load(to, slot);
    e_.op(0, true, 0x85, to, to);  // TEST
    slow_if(kZero);
  }
  void shift(u8 op, u8 reg, u8 by) {
    e_.op(0, true, 0xC1, op, reg);
    e_.byte(by);
  }

  // RAX and RDX have what to add to RSI and RDI. Flags are those of the instruction from then on.
  void repeat() {
    const bool source = form_.reads_source();
    if (source) e_.op(0, true, 0x03, rsi, rax), e_.op(0, true, 0xF7, 3, rax);
    e_.op(0, true, 0x03, rdi, rdx), e_.op(0, true, 0xF7, 3, rdx);  // ADD, NEG
    if (!source) e_.load(rax, var(&state_.saved_rax));
    // REP takes its time to start.
    e_.op(0, true, 0x83, 7, rcx), e_.byte(1);  // CMP
    const u32 many = forward(e_, kNotZero);
    instruction(false);
    e_.mov_imm(rcx, 0);
    e_.byte(0xEB);
    const u32 done = e_.size();
    e_.byte(0);
    land(e_, many);
    instruction(true);
    e_.patch8(done, static_cast<u8>(e_.size() - (done + 1)));
    if (source) e_.lea(rsi, at(rsi, rax, 0), bits64_);
    e_.lea(rdi, at(rdi, rdx, 0), bits64_);
    e_.mov(r15, rcx);
  }

  void instruction(bool repeated) {
    if (form_.size_log2 == 1) e_.byte(0x66);
    if (repeated) e_.byte(form_.compares() && !form_.while_equal ? 0xF2 : 0xF3);
    if (form_.size_log2 == 3) e_.byte(0x48);
    static constexpr u8 kOpcodes[] = {0xA4, 0xAA, 0xAC, 0xA6, 0xAE};
    e_.byte(kOpcodes[static_cast<u8>(form_.op)] | (form_.size_log2 != 0));
  }

  // Of LODS only the last element stays.
  void load_last() {
    const u8 size = static_cast<u8>(1 << form_.size_log2);
    e_.lea(r10, at(rsi, rcx, form_.size_log2));
    e_.mov(rdx, rax);
    e_.load(rax, var(&state_.saved_rax));
    e_.op(size == 2 ? 0x66 : 0, size == 8, size == 1 ? 0x8A : 0x8B, rax, at(r10, rdx, 0, -size));
    e_.store(var(&state_.saved_rax), rax);
    bits64_ ? e_.mov(rsi, r10) : e_.mov32(rsi, r10);
    e_.mov_imm(r15, 0);
  }

  Emitter& e_;
  cpu::Vcpu& cpu_;
  State& state_;
  const HostWays ways_;
  StringForm form_;
  bool bits64_;
  std::vector<u32> slow_;
};

}  // namespace

void StringThunks::emit(Emitter& out, cpu::Vcpu& cpu, State& state, const HostWays& ways, u64 call) {
  for (const bool bits64 : {false, true})
    for (u8 op = 0; op < 5; op++)
      for (u8 size = 0; size < 4; size++) {
        StringForm form{static_cast<StringOp>(op), size, true, true};
        for (const bool equal : {true, false}) {
          form.while_equal = equal;
          u64& place = at_[bits64][index(form)];
          if (!equal && !form.compares()) {  // REPNE is REP
            form.while_equal = true;
            place = at_[bits64][index(form)];
            continue;
          }
          place = out.pc();
          Writer{out, cpu, state, ways, form, bits64}.write(call);
        }
      }
}

}  // namespace trapline::engine::translate
