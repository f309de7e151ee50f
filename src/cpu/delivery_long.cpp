// Event delivery in IA-32e mode: always a 64-bit gate, handler and frame; the stack may come from the IST.
// Intel SDM Vol. 3A 6.14; Vol. 2A, INT n (64-bit branches of the pseudo-code).
#include "cpu/delivery.h"
#include "cpu/stack.h"

namespace trapline::cpu {

namespace {

struct Gate {
  u64 low, high;
  u64 offset() const { return (low & 0xffff) | (low >> 32 & 0xffff0000) | high << 32; }
  u16 selector() const { return static_cast<u16>(low >> 16); }
  unsigned ist() const { return low >> 32 & 7; }
  unsigned type() const { return low >> 40 & 31; }  // with the S bit
  unsigned dpl() const { return low >> 45 & 3; }
  bool present() const { return low >> 47 & 1; }
  bool interrupt() const { return type() == system_type::int32; }
};

bool fetch_gate(Vcpu& cpu, const Event& e, Gate& gate) {
  const u32 error = e.vector * 8u + 2;
  if (e.vector * 16u + 15 > cpu.idtr.limit) return (void)cpu.raise_gp(error), false;
  if (!system_read(cpu, Gva{cpu.idtr.base + e.vector * 16u}, gate)) return false;
  if ((gate.type() | 1) != system_type::trap32 || (e.software() && gate.dpl() < cpu.cpl))
    return (void)cpu.raise_gp(error), false;
  if (!gate.present()) return (void)cpu.raise(Vector::np, error), false;
  return true;
}

bool fetch_handler(Vcpu& cpu, u16 selector, Descriptor& code) {
  if (null_selector(selector)) return (void)cpu.raise_gp(0), false;
  if (!fetch_descriptor(cpu, selector, Vector::gp, code)) return false;
  const bool wrong = !code.code() || code.dpl() > cpu.cpl || !code.long_code() || code.big();
  if (wrong) return (void)cpu.raise_gp(selector_error(selector)), false;
  if (!code.present()) return (void)cpu.raise(Vector::np, selector_error(selector)), false;
  return true;
}

// Pushes frame[0..count), frame[0] last; `top` is aligned. The usual frame lies in one page that the TLB knows.
bool push_frame(Vcpu& cpu, u64& top, const u64* frame, unsigned count, u8 cpl) {
  const u64 bottom = top - count * 8;
  const u32 need = cpu.need_write & perm::never ? 0 : cpl == cpu.cpl ? cpu.need_write : perm::kernel_write;
  if (u8* host = tlb_lookup(cpu, Gva{bottom}, count * 8, need)) [[likely]] {
    std::memcpy(host, frame, count * 8);
    top = bottom;
    return true;
  }
  StackWriter stack{cpu, ss_of(cpu), top, true, cpl, 0};
  while (count-- > 0)
    if (!stack.push(frame[count], 8)) return false;
  top = stack.rsp();
  return true;
}

}  // namespace

Switched deliver_long(Vcpu& cpu, const Event& e) {
  Gate gate;
  Descriptor code;
  if (!fetch_gate(cpu, e, gate) || !fetch_handler(cpu, gate.selector(), code)) return Switched::fault;
  const u8 cpl = code.conforming_code() ? cpu.cpl : code.dpl();

  u64 rsp = cpu.gpr[isa::rsp];
  if (gate.ist() != 0) {
    if (!inner_stack64(cpu, 28 + 8 * gate.ist(), rsp)) return Switched::fault;
  } else if (cpl != cpu.cpl) {
    if (!inner_stack64(cpu, 4 + 8u * cpl, rsp)) return Switched::fault;
  }
  rsp &= ~u64{15};
  if (!canonical(gate.offset())) {
    (void)cpu.raise_gp(0);
    return Switched::fault;
  }
  if (!mark_accessed(cpu, code)) return Switched::fault;

  const u64 frame[6] = {e.error, e.return_rip, cs_of(cpu).selector, e.flags, cpu.gpr[isa::rsp], ss_of(cpu).selector};
  if (!push_frame(cpu, rsp, e.has_error ? frame : frame + 1, e.has_error ? 6 : 5, cpl)) return Switched::fault;

  if (cpl != cpu.cpl) {
    // A null SS with the new level as RPL; its hidden DPL is the level too.
    ss_of(cpu) = null_segment(cpl);
    ss_of(cpu).attr = static_cast<u16>(cpl << 5);
  }
  load_cs(cpu, gate.selector(), code, cpl);
  cpu.gpr[isa::rsp] = rsp;
  cpu.rip = gate.offset();
  cpu.sys_flags &= ~(flag::tf | flag::nt | flag::rf | flag::vm | (gate.interrupt() ? flag::if_ : 0));
  update_mode(cpu);
  return Switched::done;
}

}  // namespace trapline::cpu
