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
    e_.cmp_imm32(rcx, StringThunks::kMostBytes >> form_.size_log2);
    slow_if(Condition::above);
    e_.test_imm32(var(&cpu_.sys_flags), cpu::flag::df);
    const Emitter::Far down = e_.jcc(Condition::not_zero);
    if (!goes_down()) slow_.push_back(down);
    if (form_.reads_source()) look_up(rax, rsi, false);
    if (form_.has_destination()) look_up(rdx, rdi, !form_.compares());
    if (form_.op == StringOp::lods)
      load_last();
    else
      repeat();
    restore(!form_.compares());
    leave();
    if (goes_down()) {
      e_.bind(down);
      write_down();
    }
    for (const Emitter::Far jump : slow_) e_.bind(jump);
    restore(true);
    e_.jmp(call);
  }

 private:
  // With DF set, which a REP of the host's takes its time for: MOVS and STOS of 64-bit code.
  bool goes_down() const { return bits64_ && (form_.op == StringOp::movs || form_.op == StringOp::stos); }

  // Element by element. The look-ups are by the lowest address; where they fail, all is as it was.
  void write_down() {
    const u8 size = static_cast<u8>(1 << form_.size_log2);
    const bool source = form_.reads_source();
    std::vector<Emitter::Far> forward;
    std::swap(forward, slow_);
    e_.mov(rax, rcx);
    e_.neg(rax);
    if (source) e_.lea(rsi, at(rsi, rax, form_.size_log2, size));
    e_.lea(rdi, at(rdi, rax, form_.size_log2, size));
    if (source) look_up(rax, rsi, false);
    look_up(rdx, rdi, true);
    const auto highest = [&] {
      if (source) e_.lea(rsi, at(rsi, rcx, form_.size_log2, -size));
      e_.lea(rdi, at(rdi, rcx, form_.size_log2, -size));
    };
    highest();
    if (!source) e_.load(rax, var(&state_.saved_rax));
    const u64 next = e_.pc();
    const unsigned prefix = size == 2 ? 0x66 : 0;
    if (source) e_.op(prefix, size == 8, size == 1 ? 0x8A : 0x8B, r10, at(rsi, rax, 0));
    e_.op(prefix, size == 8, size == 1 ? 0x88 : 0x89, source ? r10 : rax, at(rdi, rdx, 0));
    if (source) e_.lea(rsi, at(rsi, -size));
    e_.lea(rdi, at(rdi, -size));
    e_.lea(rcx, at(rcx, -1));
    const auto done = e_.jrcxz();
    e_.jmp(next);
    e_.bind(done);
    e_.mov(r15, rcx);
    restore(true);
    leave();
    for (const Emitter::Far jump : slow_) e_.bind(jump);
    highest();
    slow_ = forward;
  }

  void slow_if(Condition c) { slow_.push_back(e_.jcc(c)); }

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
    e_.shl(to, kUp);
    if (bits64_) {  // a look-up finds the entry of the canonical address
      e_.mov(r10, to);
      e_.sar(r10, kUp);
      e_.cmp(r10, first);
      slow_if(Condition::not_zero);
    } else {  // what the mode does not see must be 0
      e_.mov32(r10, first);
      e_.cmp(r10, first);
      slow_if(Condition::not_zero);
    }
    e_.shr(to, kDown);
    e_.lea(r10, at(first, rcx, form_.size_log2, -1));
    e_.shl(r10, kUp);
    e_.shr(r10, kDown);
    e_.add(to, r10);
    Mem slot = at(kNone, to, 3);
    if (write || !ways_.gs_base) {
      e_.load(r10, var(write ? &state_.write_table : &state_.tables));
      slot = at(r10, to, 3);
    }
    slot.gs = ways_.gs_base;
    e_.load(to, slot);
    e_.test(to, to);
    slow_if(Condition::zero);
  }

  // RAX and RDX have what to add to RSI and RDI. Flags are those of the instruction from then on.
  void repeat() {
    const bool source = form_.reads_source();
    if (source) e_.add(rsi, rax), e_.neg(rax);
    e_.add(rdi, rdx), e_.neg(rdx);
    if (!source) e_.load(rax, var(&state_.saved_rax));
    // REP takes its time to start.
    e_.cmp_imm8(rcx, 1);
    const auto many = e_.jcc(Condition::not_zero);
    instruction(false);
    e_.mov_imm(rcx, 0);
    const auto done = e_.jmp_near();
    e_.bind(many);
    instruction(true);
    e_.bind(done);
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
  std::vector<Emitter::Far> slow_;
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
