#include "engine/translate/strings.h"

#include <cpuid.h>

#include <cstddef>

#include "engine/hostcode/block.h"
#include "engine/hostcode/region.h"
#include "engine/translate/thunk_parts.h"

namespace trapline::engine::translate {

using namespace hostcode;

namespace {

// FSRC: REP CMPSB and SCASB start fast (SDM Vol. 2A CPUID, leaf 7.1).
bool repeats_short_compares() {
  static const bool value = [] {
    u32 a = 0, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 12);
  }();
  return value;
}

class Writer {
 public:
  Writer(Emitter& e, cpu::Vcpu& cpu, State& state, const HostWays& ways, StringForm form, bool bits64)
      : e_{e}, cpu_{cpu}, state_{state}, ways_{ways}, form_{form}, bits64_{bits64}, parts_{e, state} {}

  void write(u64 call) {
    parts_.save();
    e_.cmp_imm32(rcx, StringThunks::kMostBytes >> form_.size_log2);
    slow_if(Condition::above);
    e_.test_imm32(var(&cpu_.sys_flags), cpu::flag::df);
    const Emitter::Far down = e_.jcc(Condition::not_zero);
    if (form_.reads_source()) look_up(rax, rsi, false);
    if (form_.has_destination()) look_up(rdx, rdi, !form_.compares());
    if (form_.op == StringOp::lods)
      load_last(false);
    else if (form_.compares())
      size() == 1 && repeats_short_compares() ? compare_bytes() : compare(false);
    else
      move();
    parts_.restore(!form_.compares());
    leave();
    e_.bind(down);
    write_down();
    parts_.bind_slow();
    parts_.restore();
    e_.jmp(call);
  }

 private:
  u8 size() const { return static_cast<u8>(1 << form_.size_log2); }

  // With DF set, which a REP of the host's takes its time for. The look-ups are by the lowest address; where they fail,
  // all is as it was.
  void write_down() {
    const std::size_t forward = parts_.slow_count();
    const auto both = [&](auto move) {
      if (form_.reads_source()) move(rsi);
      if (form_.has_destination()) move(rdi);
    };
    e_.mov(rax, rcx);
    e_.neg(rax);
    both([&](u8 end) { e_.lea(end, at(end, rax, form_.size_log2, size())); });
    if (form_.reads_source()) look_up(rax, rsi, false);
    if (form_.has_destination()) look_up(rdx, rdi, !form_.compares());
    const auto highest = [&] { both([&](u8 end) { e_.lea(end, at(end, rcx, form_.size_log2, -size())); }); };
    if (form_.op == StringOp::lods) {
      load_last(true);
    } else {
      highest();
      form_.compares() ? compare(true) : write_each(true);
    }
    parts_.restore(!form_.compares());
    leave();
    parts_.bind_slow(forward);
    highest();
  }

  // MOVS or STOS.
  void write_each(bool down) {
    const bool source = form_.reads_source();
    if (!source) e_.load(rax, var(&state_.saved_rax));
    const u64 next = e_.pc();
    if (source) e_.load_sized(size(), r10, at(rsi, rax, 0));
    e_.store_sized(size(), at(rdi, rdx, 0), source ? r10 : rax);
    step_on(down);
    const auto done = e_.jrcxz();
    e_.jmp(next);
    e_.bind(done);
    finish();
  }

  // CMPS or SCAS: a REP of the host's takes its time to start, and is no faster then, but for bytes where the host says
  // so. The flags are the last compare's.
  void compare(bool down) {
    const bool source = form_.reads_source();
    if (!source) e_.load(rax, var(&state_.saved_rax));
    const u64 next = e_.pc();
    if (source) e_.load_sized(size(), r10, at(rsi, rax, 0));
    e_.cmp_sized(size(), source ? r10 : rax, at(rdi, rdx, 0));
    step_on(down);
    const auto done = e_.jrcxz();
    e_.bind(e_.jcc(form_.while_equal ? Condition::zero : Condition::not_zero), next);
    e_.bind(done);
    finish();
  }

  // One element further. Flags stay.
  void step_on(bool down) {
    const i32 by = down ? -size() : size();
    if (form_.reads_source()) e_.lea(rsi, at(rsi, by));
    if (form_.has_destination()) e_.lea(rdi, at(rdi, by));
    e_.lea(rcx, at(rcx, -1));
  }
  // In 32-bit code addresses begin anew at 4 GiB.
  void finish() {
    if (!bits64_ && form_.reads_source()) e_.mov32(rsi, rsi);
    if (!bits64_ && form_.has_destination()) e_.mov32(rdi, rdi);
    e_.mov(r15, rcx);
  }

  void slow_if(Condition c) { parts_.slow_if(c); }
  void leave() { e_.jmp_mem(at(r11, offsetof(ExitStub, resume))); }

  // `to`: what to add to `first` for the host's address of its RCX elements, which lie in one page.
  void look_up(u8 to, u8 first, bool write) {
    if (!bits64_) {  // what the mode does not see must be 0
      e_.mov32(r10, first);
      e_.cmp(r10, first);
      slow_if(Condition::not_zero);
    }
    parts_.sum_pages(to, r10, first, at(first, rcx, form_.size_log2, -1), bits64_);
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

  // REP takes its time to start, least with bytes.
  void move() {
    e_.cmp_imm8(rcx, size() == 1 ? 1 : 8);
    const Emitter::Far many = e_.jcc(Condition::above);
    write_each(false);
    const Emitter::Near done = e_.jmp_near();
    e_.bind(many);
    repeat();
    e_.bind(done);
  }

  void compare_bytes() {
    e_.cmp_imm8(rcx, 8);
    const Emitter::Far many = e_.jcc(Condition::above);
    compare(false);
    const Emitter::Near done = e_.jmp_near();
    e_.bind(many);
    repeat();
    e_.bind(done);
  }

  // The host's own. RAX and RDX have what to add to RSI and RDI.
  void repeat() {
    const bool source = form_.reads_source();
    if (source) e_.add(rsi, rax), e_.neg(rax);
    e_.add(rdi, rdx), e_.neg(rdx);
    if (!source) e_.load(rax, var(&state_.saved_rax));
    static constexpr StringInsn kInsns[] = {StringInsn::movs, StringInsn::stos, StringInsn::lods, StringInsn::cmps,
                                            StringInsn::scas};
    e_.rep(kInsns[static_cast<u8>(form_.op)], size(), !form_.compares() || form_.while_equal);
    if (source) e_.lea(rsi, at(rsi, rax, 0), bits64_);
    e_.lea(rdi, at(rdi, rdx, 0), bits64_);
    e_.mov(r15, rcx);
  }

  // Of LODS only the last element stays: it is at the upper end, or the lower one, of RCX elements at RSI.
  void load_last(bool down) {
    e_.mov(rdx, rax);
    e_.load(rax, var(&state_.saved_rax));
    if (!down) e_.lea(rsi, at(rsi, rcx, form_.size_log2));
    e_.load_sized(size(), rax, at(rsi, rdx, 0, down ? 0 : -size()));
    e_.store(var(&state_.saved_rax), rax);
    if (down) e_.lea(rsi, at(rsi, -size()));
    if (!bits64_) e_.mov32(rsi, rsi);
    e_.mov_imm(r15, 0);
  }

  Emitter& e_;
  cpu::Vcpu& cpu_;
  State& state_;
  const HostWays ways_;
  StringForm form_;
  bool bits64_;
  ThunkParts parts_;
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
