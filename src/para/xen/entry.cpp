// Between the two modes of a guest, both of which are CPL 3: frames on its kernel's stack, and the iret hypercall.
// Layouts and rules: xen/arch-x86/xen-x86_64.h.
#include <cstdlib>

#include "base/trace.h"
#include "cpu/delivery.h"
#include "cpu/descriptor.h"
#include "cpu/mmu_internal.h"
#include "para/xen/bounce.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"

namespace trapline::para::xen {

namespace {

using cpu::Outcome;
namespace flag = cpu::flag;

cpu::Segment flat(u16 selector, u16 attr) {
  cpu::Segment s;
  s.selector = selector;
  s.attr = attr;
  s.limit = 0xffffffff;
  s.usable = true;
  return s;
}

// A user's TF and AC end where its kernel begins.
constexpr u32 kClearedOnEntry = flag::tf | flag::nt | flag::rf | flag::vm | flag::ac;

// After CS and SS have been loaded. From 64-bit code to 64-bit code nothing else follows.
void update_after_load(cpu::Vcpu& cpu) {
  if (cpu.mode != cpu::Mode::long64 || !cpu::cs_of(cpu).long_mode()) return cpu::update_mode(cpu);
  for (cpu::Segment* s : {&cpu::cs_of(cpu), &cpu::ss_of(cpu)}) s->linear_base = 0, s->flat_read = s->flat_write = true;
  cpu::update_access(cpu);
}

bool canonical_for_return(u64 rip, bool long_code) { return !long_code || cpu::canonical(rip); }

}  // namespace

cpu::Segment flat_code64() { return flat(kKernelCs, 0xa0fb); }
cpu::Segment flat_code32() { return flat(kFlatCs32, 0xc0fb); }
cpu::Segment flat_stack() { return flat(kKernelSs, 0xc0f3); }

std::string Domain::Bounce::name(const cpu::Vcpu& cpu) const {
  if (vector < 0) return what;
  return fmt::format("exception {} (error {:#x}, cr2 {:#x}, at {:#x})", vector, error, cpu.cr2, rip);
}

void Domain::crash(cpu::Vcpu& cpu, const std::string& why) {
  host_.crash(cpu, why);
  std::abort();
}

u8 Domain::upcall_mask(const cpu::Vcpu& cpu) const {
  const Gpa at = events_.vcpu_info(cpu.index);
  return at.raw == 0 ? 1 : *(reinterpret_cast<const u8*>(ram_.host(at)) + offsetof(vcpu_info, evtchn_upcall_mask)) != 0;
}

void Domain::set_upcall_mask(cpu::Vcpu& cpu, u8 value) {
  const Gpa at = events_.vcpu_info(cpu.index);
  if (at.raw == 0) return;
  __atomic_store_n(reinterpret_cast<u8*>(ram_.host(at)) + offsetof(vcpu_info, evtchn_upcall_mask), value,
                   __ATOMIC_SEQ_CST);
}

// Upcalls may be open now.
void Domain::look_for_events(cpu::Vcpu& cpu) {
  if (events_.upcall(cpu.index)) cpu.attention->fetch_or(cpu::attention::interrupt);
}

// -- Modes. The kernel's GS base waits in KERNEL_GS_BASE while a program runs, as SWAPGS would have it.

// No entry of the TLB is lost: each has the permissions of the mode that may use it.
void set_roots(cpu::Vcpu& cpu, const VcpuState& v) {
  cpu.cr3 = gpa(v.kernel ? v.kernel_root : v.user_root).raw;
  cpu::state(cpu).kernel_at_cpl3 = v.kernel;
  cpu::state(cpu).other_root = gpa(v.kernel ? v.user_root : v.kernel_root);
  cpu::update_access(cpu);
}

static void swap_gs(cpu::Vcpu& cpu) {
  cpu::Segment& gs = cpu.segment(cpu::Seg::gs);
  std::swap(gs.base, cpu.msr.kernel_gs_base);
  gs.linear_base = gs.base;
}

void Domain::to_kernel(cpu::Vcpu& cpu) {
  VcpuState& v = state(cpu);
  v.kernel = true;
  swap_gs(cpu);
  set_roots(cpu, v);
}

void Domain::to_user(cpu::Vcpu& cpu) {
  VcpuState& v = state(cpu);
  if (v.user_root == kNoMfn)
    crash(cpu, "the kernel returns to a program without user page tables (MMUEXT_NEW_USER_BASEPTR)");
  v.kernel = false;
  swap_gs(cpu);
  set_roots(cpu, v);
}

// -- Into the kernel

Outcome Domain::bounce(cpu::Vcpu& cpu, const Bounce& b) {
  VcpuState& v = state(cpu);
  if (b.handler == Gva{}) crash(cpu, "the guest's kernel has no handler for " + b.name(cpu));
  const bool from_kernel = v.kernel;
  const u64 old_rsp = cpu.gpr[isa::rsp];
  if (!from_kernel) to_kernel(cpu);
  const u8 mask = upcall_mask(cpu);
  const u64 cs = (from_kernel ? b.cs & ~u64{3} : b.cs) | u64{mask} << 32;
  const bool shows_iopl = assists_.load() >> VMASST_TYPE_architectural_iopl & 1;
  const u32 flags = (b.flags & ~u32{flag::if_}) | (mask ? 0 : u32{flag::if_}) | (shows_iopl ? v.iopl << 12 : 0);

  u64 frame[12];
  unsigned n = 0;
  frame[n++] = cpu.gpr[isa::rcx];
  frame[n++] = cpu.gpr[isa::r11];
  if (b.segments)
    for (const cpu::Seg s : {cpu::Seg::ds, cpu::Seg::es, cpu::Seg::fs, cpu::Seg::gs})
      frame[n++] = cpu.segment(s).selector;
  if (b.has_error) frame[n++] = b.error;
  for (const u64 item : {b.rip, cs, u64{flags}, old_rsp, u64{b.ss}}) frame[n++] = item;

  const u64 top = (from_kernel ? old_rsp : v.kernel_sp.raw) & ~u64{15};
  const u64 bottom = top - n * 8;
  static const cpu::Segment kCode = flat_code64(), kStack = flat_stack();
  cpu::cs_of(cpu) = kCode;
  cpu::ss_of(cpu) = kStack;
  cpu.sys_flags = (cpu.sys_flags & ~kClearedOnEntry) | flag::if_;
  update_after_load(cpu);
  const bool nested = std::exchange(v.in_hypercall, true);
  const bool written = copy_to(cpu, Gva{bottom}, frame, n * 8, cpu::Seg::ss);
  v.in_hypercall = nested;
  if (!written) crash(cpu, fmt::format("{} finds no kernel stack at {:#x}", b.name(cpu), bottom));
  cpu.gpr[isa::rsp] = bottom;
  cpu.rip = b.handler.raw;
  if (b.masks_events) set_upcall_mask(cpu, 1);
  TRACE(exceptions, "xen: {} at {:#x} -> {}, from {}", b.name(cpu), b.rip, b.handler, from_kernel ? "kernel" : "user");
  return Outcome::jumped;
}

Outcome Domain::syscall(cpu::Vcpu& cpu, u64 next) {
  if (state(cpu).kernel) return hypercall(cpu, next);
  return from_user(cpu, next);
}

// What a program's SYSCALL leaves in RCX and R11 is what the processor would have left there.
Outcome Domain::from_user(cpu::Vcpu& cpu, u64 next) {
  VcpuState& v = state(cpu);
  const bool long_code = cpu.in_long64();
  const Callback& callback = long_code ? v.syscall : v.syscall32;
  if (callback.address == Gva{}) {
    static_cast<void>(cpu.raise_ud());
    return Outcome::fault;
  }
  const u32 flags = cpu.rflags() & ~flag::rf;
  cpu.gpr[isa::rcx] = next;
  cpu.gpr[isa::r11] = flags;
  Bounce b{"syscall", callback.address};
  b.masks_events = callback.masks_events;
  b.rip = next;
  b.cs = long_code ? kKernelCs : kFlatCs32;
  b.ss = kKernelSs;
  b.flags = flags;
  return bounce(cpu, b);
}

// -- Out of it

// A line of the guest's part of the GDT; 0: there is none.
u64 Domain::gdt_line(const VcpuState& v, u16 selector) const {
  const u32 index = selector >> 3;
  const Mfn frame = index < v.gdt_entries ? v.gdt[index / kEntries] : kNoMfn;
  return frame == kNoMfn ? 0 : __atomic_load_n(frames_.table(frame) + index % kEntries, __ATOMIC_RELAXED);
}

// CS and SS of a frame. A program is nearly always returned to with those that it had.
bool Domain::load_return_segments(cpu::Vcpu& cpu, u16 cs, u16 ss) {
  auto& last = state(cpu).returned_to;
  const u64 cs_line = gdt_line(state(cpu), cs), ss_line = gdt_line(state(cpu), ss);
  if (last.code.usable && last.cs == cs && last.ss == ss && last.cs_line == cs_line && last.ss_line == ss_line) {
    cpu::cs_of(cpu) = last.code;
    cpu::ss_of(cpu) = last.stack;
    return true;
  }
  cpu::Segment code = flat_code64(), stack = flat_stack();
  if (!check_return_segments(cpu, cs, ss, code, stack)) return false;
  cpu::cs_of(cpu) = code;
  cpu::ss_of(cpu) = stack;
  constexpr u16 kLocal = 4;
  if (!((cs | ss) & kLocal)) last = {cs, ss, gdt_line(state(cpu), cs), gdt_line(state(cpu), ss), code, stack};
  return true;
}

// As the hardware's IRET to CPL 3 would load them.
bool Domain::check_return_segments(cpu::Vcpu& cpu, u16 cs, u16 ss, cpu::Segment& code, cpu::Segment& stack) {
  cs |= 3;
  if (cs != kKernelCs) {
    cpu::Descriptor d;
    if (cpu::null_selector(cs) || !cpu::fetch_descriptor(cpu, cs, cpu::Vector::gp, d)) return false;
    const bool dpl_right = d.conforming_code() ? d.dpl() <= 3 : d.dpl() == 3;
    if (!d.code() || !dpl_right || !d.present() || (d.long_code() && d.big())) return false;
    code = cpu::segment_from(cs, d);
  }
  if (cpu::null_selector(ss)) {
    // A null SS is for ring 0 to 2; Xen's own flat one takes its place, as SYSRET would have it.
    if (!code.long_mode()) return false;
  } else if ((ss | 3) != kKernelSs && !cpu::check_stack_segment(cpu, ss | 3, 3, cpu::Vector::gp, stack)) {
    return false;
  }
  return true;
}

// What cannot be returned to comes back to the kernel, as if the kernel itself had been interrupted there.
Outcome Domain::failsafe(cpu::Vcpu& cpu, const Bounce& from) {
  VcpuState& v = state(cpu);
  Bounce b = from;
  b.what = "failsafe";
  b.handler = v.failsafe.address;
  b.masks_events = v.failsafe.masks_events;
  b.segments = true;
  return bounce(cpu, b);
}

Outcome Domain::iret(cpu::Vcpu& cpu) {
  VcpuState& v = state(cpu);
  v.returned = true;
  iret_context frame;
  v.in_hypercall = true;
  const bool read = get(cpu, Gva{cpu.gpr[isa::rsp]}, frame);
  v.in_hypercall = false;
  if (!read) crash(cpu, fmt::format("the iret hypercall finds no frame at {:#x}", cpu.gpr[isa::rsp]));
  const bool to_program = (frame.cs & 3) == 3;
  if (to_program) to_user(cpu);
  cpu.gpr[isa::rax] = frame.rax;
  const u32 flags = (static_cast<u32>(frame.rflags) & ~(flag::iopl | flag::vm | flag::vif | flag::vip)) | flag::if_;
  cpu.gpr[isa::rsp] = frame.rsp;
  bool loaded = true;
  if (assists_.load() >> VMASST_TYPE_architectural_iopl & 1) v.iopl = static_cast<u32>(frame.rflags) >> 12 & 3;
  if (frame.flags & VGCF_in_syscall) {
    cpu::cs_of(cpu) = (frame.cs & 0xffff) == kFlatCs32 ? flat_code32() : flat_code64();
    cpu::ss_of(cpu) = flat_stack();
    cpu.gpr[isa::rcx] = frame.rip;
    cpu.gpr[isa::r11] = flags;
  } else {
    cpu.gpr[isa::rcx] = frame.rcx;
    cpu.gpr[isa::r11] = frame.r11;
    loaded = load_return_segments(cpu, static_cast<u16>(frame.cs), static_cast<u16>(frame.ss));
  }
  set_upcall_mask(cpu, frame.rflags & flag::if_ ? 0 : 1);
  cpu.cpl = 3;
  if (!loaded || !canonical_for_return(frame.rip, cpu::cs_of(cpu).long_mode())) {
    Bounce b{"iret", Gva{}};
    b.rip = frame.rip;
    b.cs = static_cast<u16>(frame.cs);
    b.ss = static_cast<u16>(frame.ss);
    b.flags = flags;
    return failsafe(cpu, b);
  }
  cpu.rip = frame.rip;
  cpu.set_rflags_raw(flags & ~flag::rf);
  update_after_load(cpu);
  look_for_events(cpu);
  return Outcome::jumped;
}

// -- Exceptions

Outcome Domain::deliver(cpu::Vcpu& cpu, const cpu::Event& e) {
  VcpuState& v = state(cpu);
  const bool exception = e.kind == cpu::EventKind::exception;
  const auto vector = static_cast<cpu::Vector>(e.vector);
  if (exception && vector == cpu::Vector::ud && forced_cpuid(cpu)) return Outcome::jumped;
  if (exception && vector == cpu::Vector::gp) {
    bool done = false;
    const Outcome outcome = emulate(cpu, &done);
    if (done) return outcome;
  }
  if (exception && vector == cpu::Vector::nm && v.fpu_trap) {
    v.fpu_trap = false;
    cpu.cr0 &= ~cpu::cr0::ts;
  }
  const trap_info* trap = &v.traps[e.vector];
  Bounce b{"an exception", Gva{trap->address}};
  b.has_error = e.has_error;
  b.error = e.error;
  // A gate that the caller may not use is a #GP that names it.
  if (e.software() && TI_GET_DPL(trap) < (v.kernel ? 1 : 3)) {
    trap = &v.traps[static_cast<u8>(cpu::Vector::gp)];
    b.handler = Gva{trap->address};
    b.has_error = true;
    b.error = e.vector * 8u + 2;
    b.rip = cpu.rip;
  } else {
    b.rip = e.return_rip;
  }
  if (exception && vector == cpu::Vector::pf) {
    b.error &= ~cpu::pf_error::user;
    if (!v.kernel) b.error |= cpu::pf_error::user;
    if (const Gpa at = events_.vcpu_info(cpu.index); at.raw != 0)
      std::memcpy(ram_.host(Gpa{at.raw + offsetof(vcpu_info, arch.cr2)}), &cpu.cr2, 8);
  }
  b.vector = e.vector;
  b.masks_events = TI_GET_IF(trap) != 0;
  b.cs = cpu::cs_of(cpu).selector;
  b.ss = cpu::ss_of(cpu).selector;
  b.flags = e.flags;
  return bounce(cpu, b);
}

// -- Events

Outcome Domain::take_event(cpu::Vcpu& cpu) {
  VcpuState& v = state(cpu);
  receive(cpu);
  // An upcall ends SCHEDOP_poll, too: who waits for a lock with its events open may be waited for.
  const bool upcall = events_.upcall(cpu.index);
  if (v.polling && (upcall || poll_satisfied(cpu))) {
    v.polling = false;
    events_.set_polling(cpu.index, false);
    v.poll_until = ~u64{0};
    arm(cpu);
    cpu.activity = cpu::Activity::running;
    change_runstate(cpu, RUNSTATE_running);
  }
  if (!upcall) return Outcome::next;
  if (cpu.activity == cpu::Activity::halted) change_runstate(cpu, RUNSTATE_running);
  cpu.activity = cpu::Activity::running;
  cpu.count.interrupts++;
  Bounce b{"an event", v.event.address};
  b.masks_events = true;
  b.rip = cpu.rip;
  b.cs = cpu::cs_of(cpu).selector;
  b.ss = cpu::ss_of(cpu).selector;
  b.flags = cpu.rflags();
  return bounce(cpu, b);
}

bool Domain::wakes(cpu::Vcpu& cpu) { return events_.upcall(cpu.index) || (state(cpu).polling && poll_satisfied(cpu)); }

}  // namespace trapline::para::xen
