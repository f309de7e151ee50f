#include "para/xen/domain.h"

#include <sched.h>

#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/descriptor.h"
#include "cpu/fpu.h"
#include "cpu/lapic.h"
#include "para/xen/backend/back_ends.h"
#include "para/xen/bounce.h"
#include "para/xen/console.h"
#include "para/xen/guest_copy.h"
#include "para/xen/locked.h"
#include "para/xen/store.h"

namespace trapline::para::xen {

namespace {

constexpr u64 kTable = pte::present | pte::writable | pte::user | pte::accessed;

// Xen's part of the GDT: flat ring-3 segments, where xen/arch-x86/xen-x86_64.h says.
constexpr u64 kCode32 = 0x00cffb000000ffff, kCode64 = 0x00affb000000ffff, kData = 0x00cff3000000ffff;

unsigned entry_of_selector(u16 selector) { return selector / 8u % 512; }

}  // namespace

Domain::Domain(GuestMemory& ram, const Layout& layout, const cpu::Clock& clock, u64 wall_ns, u32 vcpus, Host& host)
    : ram_{ram},
      layout_{layout},
      clock_{clock},
      scale_{ClockScale::from_tsc_khz(clock.tsc_khz)},
      wall_ns_{wall_ns},
      host_{host},
      frames_{layout, ram},
      cpus_(vcpus, nullptr),
      events_{ram, gpa(layout.shared_info), vcpus, [this](u32 vcpu) { notify(vcpu); }} {
  for (u32 i = 0; i < vcpus; i++) {
    vcpu_.push_back(std::make_unique<VcpuState>());
    vcpu_.back()->runstate.state = RUNSTATE_offline;
  }
}

Domain::~Domain() = default;

void Domain::prepare() {
  // Machine to pseudo-physical.
  u64* m2p = frames_.table(layout_.m2p);
  for (u64 mfn = 0; mfn < layout_.frames(); mfn++) m2p[mfn] = layout_.pfn(Mfn{mfn}).raw;
  const auto clear = [this](Mfn first, u64 count) {
    for (u64 i = 0; i < count; i++) std::memset(frames_.table(first + i), 0, kPageSize);
  };
  clear(layout_.m2p_l1, layout_.m2p_l1_frames);
  clear(layout_.m2p_l2, 1), clear(layout_.m2p_l3, 1);
  clear(layout_.tables_l1, layout_.tables_l1_frames);
  clear(layout_.tables_l2, 1), clear(layout_.tables_l3, 1);
  clear(layout_.gdt, 1), clear(layout_.shared_info, 1), clear(layout_.grants, kGrantFrames);
  for (u64 i = 0; i < layout_.m2p_frames; i++)
    frames_.table(layout_.m2p_l1)[i] = gpa(layout_.m2p + i).raw | pte::present | pte::user | pte::accessed | pte::nx;
  for (u64 i = 0; i < layout_.m2p_l1_frames; i++)
    frames_.table(layout_.m2p_l2)[i] = gpa(layout_.m2p_l1 + i).raw | kTable;
  frames_.table(layout_.m2p_l3)[0] = gpa(layout_.m2p_l2).raw | kTable;
  for (u64 i = 0; i < layout_.tables_l1_frames; i++)
    frames_.table(layout_.tables_l2)[i] = gpa(layout_.tables_l1 + i).raw | kTable;
  frames_.table(layout_.tables_l3)[0] = gpa(layout_.tables_l2).raw | kTable;
  // Descriptor tables: Xen's page behind the guest's.
  u64* gdt = frames_.table(layout_.gdt);
  gdt[entry_of_selector(kFlatCs32)] = kCode32;
  gdt[entry_of_selector(kFlatDs32)] = kData;
  gdt[entry_of_selector(kKernelCs)] = kCode64;
  for (u32 vcpu = 0; vcpu < vcpu_.size(); vcpu++)
    frames_.table(layout_.tables_l1)[u64{vcpu} * kTablePages + kGdtGuestPages] =
        gpa(layout_.gdt).raw | pte::present | pte::writable | pte::accessed | pte::dirty | pte::nx;
  // Shared info, as Xen's domain builder leaves it: no port is masked, every vCPU's upcalls are.
  auto* shared = reinterpret_cast<shared_info*>(frames_.table(layout_.shared_info));
  for (vcpu_info& v : shared->vcpu_info) v.evtchn_upcall_mask = 1;
  constexpr u64 kNsPerSecond = 1'000'000'000;
  shared->wc_version = 2;
  shared->wc_sec = static_cast<u32>(wall_ns_ / kNsPerSecond);
  shared->wc_sec_hi = static_cast<u32>(wall_ns_ / kNsPerSecond >> 32);
  shared->wc_nsec = static_cast<u32>(wall_ns_ % kNsPerSecond);
  store_port_ = events_.add_backend(Consumer::store, 0);
  console_port_ = events_.add_backend(Consumer::console, 0);
}

// 64-bit mode, paging on, everything at CPL 3; segments flat, no GDT of the guest's yet but what it has set.
void Domain::enter_long_mode(cpu::Vcpu& cpu) {
  cpu.cr0 = cpu::cr0::pe | cpu::cr0::mp | cpu::cr0::et | cpu::cr0::ne | cpu::cr0::wp | cpu::cr0::am | cpu::cr0::pg;
  const u64 allowed = cpu.cpuid ? cpu.cpuid->cr4_allowed() : ~u64{0};
  cpu.cr4 = (cpu::cr4::pae | cpu::cr4::osfxsr | cpu::cr4::osxmmexcpt | cpu::cr4::mce) & allowed;
  cpu.efer = cpu::efer::sce | cpu::efer::lme | cpu::efer::lma | cpu::efer::nxe;
  cpu.gdtr = {gdt_address(cpu.index).raw, (kGdtGuestPages + 1) * kPageSize - 1};
  cpu.idtr = {0, 0};
  cpu.ldtr = cpu::null_segment(0);
  cpu.tr = cpu::null_segment(0);
  for (cpu::Segment& s : cpu.seg) s = cpu::null_segment(0);
  cpu.cpl = 3;
  cpu::cs_of(cpu) = flat_code64();
  cpu::ss_of(cpu) = flat_stack();
  cpu.set_rflags_raw(cpu::flag::if_);
}

Result<void, std::string> Domain::begin(cpu::Vcpu& cpu, const Built& built) {
  VcpuState& v = state(cpu);
  console_ = std::make_unique<Console>(*this, ram_, built.console, console_port_);
  store_ = std::make_unique<Store>(*this, ram_, built.store, store_port_);
  back_ends_ = std::make_unique<BackEnds>(*this, ram_);
  // The tables are checked as the guest's own will be; pinned, as Xen's builder leaves them, and in use.
  if (!frames_.get(cpu, built.root, Type::l4) || !frames_.get(cpu, built.root, Type::l4))
    return Err{std::string("the initial page tables are not valid")};
  frames_[built.root].pinned = true;
  v.kernel_root = built.root;
  v.initialised = v.up = true;
  v.kernel_sp = built.stack;
  v.runstate.state = RUNSTATE_running;
  for (u64& r : cpu.gpr) r = 0;
  enter_long_mode(cpu);
  set_roots(cpu, v);
  cpu.gpr[isa::rsi] = built.start_info.raw;
  cpu.gpr[isa::rsp] = built.stack.raw;
  cpu.rip = built.entry.raw;
  cpu.activity = cpu::Activity::running;
  for (u32 i = 0; i < vcpu_.size(); i++) write_time(cpu, i);
  cpu::tlb_flush_all(cpu);
  cpu::update_mode(cpu);
  // The machine's interrupts are the hypervisor's, and come to vCPU 0.
  constexpr u32 kSpurious = 0xf0, kEnable = 0x1ff;
  if (cpu.lapic) cpu.lapic->mmio_write(kSpurious, kEnable);
  return {};
}

void Domain::notify(u32 vcpu) {
  cpu::Vcpu* cpu = cpus_[vcpu];
  if (!cpu) return;
  cpu->attention->fetch_or(cpu::attention::interrupt);
  host_.wake(vcpu);
}

void Domain::raise(Port port) {
  const std::lock_guard guard{events_lock_};
  events_.raise(port);
}

void Domain::receive(cpu::Vcpu& cpu) {
  if (cpu.index != 0 || !cpu.lapic) return;
  constexpr u32 kEoi = 0xb0;
  while (const std::optional<u8> vector = cpu.lapic->pending()) {
    cpu.lapic->accept(*vector);
    cpu.lapic->mmio_write(kEoi, 0);
    if (*vector == Console::kVector)
      console_->received(cpu);
    else
      static_cast<void>(back_ends_->interrupted(cpu, *vector));
  }
}

}  // namespace trapline::para::xen
