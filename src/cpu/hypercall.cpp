// VMCALL and VMMCALL. A guest that was offered a paravirtual interface may use either, whatever the host's vendor; for
// others neither instruction exists.
#include "base/trace.h"
#include "cpu/para.h"
#include "cpu/semantics.h"

namespace trapline::cpu {

Outcome sem::hypercall(Vcpu& cpu, const isa::Insn&) {
  if (!cpu.para) return cpu.raise_ud();
  cpu.count.hypercalls++;
  // Registers are as wide as the mode (Linux Documentation/virt/kvm/x86/hypercalls.rst).
  const u64 mask = cpu.in_long64() ? ~u64{0} : 0xffffffff;
  const u64 number = cpu.gpr[isa::rax] & mask;
  const std::array<u64, 4> arguments = {cpu.gpr[isa::rbx] & mask, cpu.gpr[isa::rcx] & mask, cpu.gpr[isa::rdx] & mask,
                                        cpu.gpr[isa::rsi] & mask};
  const u64 result = cpu.cpl > 0 ? cpu.para->hypercall_denied(cpu) : cpu.para->hypercall(cpu, number, arguments);
  TRACE(exits, "hypercall {} -> {:#x}", number, result & mask);
  cpu.gpr[isa::rax] = result & mask;
  return Outcome::next;
}

}  // namespace trapline::cpu
