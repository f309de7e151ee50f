// One Xen PV domain: what the hypervisor knows of the guest beyond its registers, and the answers to all that it asks.
// docs/xen-pv.md has the mechanism, the invariants and the table of hypercalls.
//
// One object per VM, installed as Vcpu::hypervisor before threads start; each call comes on a vCPU's thread. Locks, in
// this order: `lock_` (frames, page tables, grants, placement of vCPU areas; a vCPU that waits for it answers the
// others' requests), then `events_lock_` (ports; nothing sleeps or asks under it). A VcpuState belongs to its vCPU's
// thread, but for the fields marked otherwise.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "cpu/code_map.h"
#include "cpu/hypervisor.h"
#include "cpu/mmu.h"
#include "cpu/vcpu.h"
#include "para/kvm/kvm.h"
#include "para/xen/abi.h"
#include "para/xen/event_channels.h"
#include "para/xen/frames.h"
#include "para/xen/layout.h"

namespace trapline::para::xen {

class BackEnds;
class Console;
class Store;

// What the domain needs of the machine it is on.
struct Host {
  virtual ~Host() = default;
  virtual void wake(u32 vcpu) = 0;  // attention bits were set
  virtual void power_off(cpu::Vcpu& cpu) = 0;
  virtual void reboot(cpu::Vcpu& cpu) = 0;
  [[noreturn]] virtual void crash(cpu::Vcpu& cpu, const std::string& why) = 0;
};

// What a domain builder has put where.
struct Built {
  Mfn root;  // level-4 table
  Gva start_info, stack, entry;
  Mfn store, console;  // ring pages
};

struct Callback {
  Gva address;
  bool masks_events = false;
};

struct VcpuState {
  bool kernel = true;                          // in which of its two modes the guest is
  Mfn kernel_root, user_root;                  // level-4 tables, or kNoMfn
  std::array<u64, kEntries / 2> user_upper{};  // the upper half of the last user root that there was
  Gva kernel_sp;
  Mfn info_frame;  // of its vcpu_info, once registered
  std::array<trap_info, 256> traps{};
  Callback event, failsafe, syscall, syscall32, sysenter, nmi;
  std::array<Mfn, kGdtGuestPages> gdt{};
  u32 gdt_entries = 0;
  Gva ldt_base;
  u32 ldt_entries = 0;
  bool fpu_trap = false;     // the guest has asked for #NM
  u32 iopl = 0;              // PHYSDEVOP_set_iopl
  Gva io_bitmap;             // a bit a port, of the kernel's memory
  u32 io_ports = 0;          // how many it covers
  u64 upper_seen = ~u64{0};  // Frames::upper_changes() when it flushed all
  u64 dr7 = 0x400;           // as the guest sees it; the CPU has no I/O breakpoints of a guest's
  bool returned = false;     // the iret hypercall has left the kernel, or its place in it
  Gva runstate_at, time_at;  // its copies; 0: none
  vcpu_runstate_info runstate{};
  u64 singleshot = ~u64{0}, periodic = 0, next_period = ~u64{0}, poll_until = ~u64{0};  // VM TSC ticks; ~0: off
  std::vector<Port> polled;
  bool polling = false;
  struct {  // the last segments that a program was returned to with, and the lines of the GDT that they come from
    u16 cs = 0, ss = 0;
    u64 cs_line = 0, ss_line = 0;
    cpu::Segment code, stack;
  } returned_to;
  bool in_hypercall = false;  // copies do not go the way of the guest's own stores
  // The others', under lock_.
  std::unique_ptr<vcpu_guest_context> context;  // of VCPUOP_initialise
  std::atomic<bool> initialised{false}, up{false};
};

class Domain final : public cpu::Hypervisor {
 public:
  // `wall_ns`: as para::Kvm's.
  Domain(GuestMemory& ram, const Layout& layout, const cpu::Clock& clock, u64 wall_ns, u32 vcpus, Host& host);
  ~Domain() override;

  // Before the builder: tables of the hypervisor's area, the shared info page.
  void prepare();
  // The builder is done, and `cpu`, vCPU 0, begins there. Error: one line.
  Result<void, std::string> begin(cpu::Vcpu& cpu, const Built& built);
  Port store_port() const { return store_port_; }
  Port console_port() const { return console_port_; }
  const Layout& layout() const { return layout_; }
  Frames& frames() { return frames_; }
  EventChannels& events() { return events_; }
  VcpuState& state(u32 vcpu) { return *vcpu_[vcpu]; }
  u32 vcpus() const { return static_cast<u32>(vcpu_.size()); }
  void raise(Port port);  // from a back end

  // -- For back ends (for_back_ends.cpp). A frame that the guest has granted to domain 0. While it is held it is not
  // given back, nor, where the back end writes to it, made a page table.
  struct Held {
    u32 ref;
    bool writes;  // by the back end
    Mfn frame{};
  };
  bool hold_grants(cpu::Vcpu& cpu, std::span<Held> grants);  // all, or none
  void release_grants(cpu::Vcpu& cpu, std::span<const Held> grants);
  // The other end of a port of the guest's. False: it is not one that waits for domain 0.
  bool connect_port(Port port, Consumer consumer, u32 instance);
  void disconnect_port(Port port, Consumer consumer, u32 instance);
  void raise_if_connected(Port port, Consumer consumer, u32 instance);
  std::byte* host(Mfn frame) const { return ram_.host(gpa(frame)); }
  Store& store() { return *store_; }
  BackEnds& back_ends() { return *back_ends_; }

  // -- cpu::Hypervisor
  cpu::Outcome syscall(cpu::Vcpu& cpu, u64 next) override;
  cpu::Outcome deliver(cpu::Vcpu& cpu, const cpu::Event& event) override;
  cpu::Outcome take_event(cpu::Vcpu& cpu) override;
  bool wakes(cpu::Vcpu& cpu) override;
  void on_timer(cpu::Vcpu& cpu) override;
  bool start(cpu::Vcpu& cpu) override;
  void flush(cpu::Vcpu& cpu) override;
  bool takes_write(cpu::Vcpu& cpu, Gva linear, Gpa gpa, unsigned size) override;
  bool write_table(cpu::Vcpu& cpu, Gva linear, Gpa gpa, const void* in, unsigned size) override;
  bool replace_table(cpu::Vcpu& cpu, Gva linear, Gpa gpa, const void* expected, const void* in, unsigned size,
                     bool* stored) override;

  using Arguments = std::array<u64, 6>;
  // One hypercall but for iret and multicall, which are the CPU's. Public for tests.
  Status call(cpu::Vcpu& cpu, u64 number, const Arguments& a);
  // Nanoseconds since the VM's start, as the guest computes them.
  u64 system_time(const cpu::Vcpu& cpu) const { return scale_.to_ns(cpu.vm_tsc()); }

 private:
  friend class Console;
  friend class Store;
  struct Frame8;
  VcpuState& state(const cpu::Vcpu& cpu) { return *vcpu_[cpu.index]; }

  // Waits for lock_ while it serves what others wait for.
  class Locked;

  // entry.cpp: between the guest's modes
  struct Bounce;
  cpu::Outcome bounce(cpu::Vcpu& cpu, const Bounce& b);
  cpu::Outcome hypercall(cpu::Vcpu& cpu, u64 next);
  cpu::Outcome iret(cpu::Vcpu& cpu);
  cpu::Outcome failsafe(cpu::Vcpu& cpu, const Bounce& b);
  cpu::Outcome from_user(cpu::Vcpu& cpu, u64 next);
  void enter_long_mode(cpu::Vcpu& cpu);
  void to_kernel(cpu::Vcpu& cpu);
  void to_user(cpu::Vcpu& cpu);
  bool load_return_segments(cpu::Vcpu& cpu, u16 cs, u16 ss);
  bool check_return_segments(cpu::Vcpu& cpu, u16 cs, u16 ss, cpu::Segment& code, cpu::Segment& stack);
  u64 gdt_line(const VcpuState& v, u16 selector) const;
  [[noreturn]] void crash(cpu::Vcpu& cpu, const std::string& why);
  u8 upcall_mask(const cpu::Vcpu& cpu) const;
  void set_upcall_mask(cpu::Vcpu& cpu, u8 value);
  void look_for_events(cpu::Vcpu& cpu);

  // emulate.cpp: what the guest's kernel may execute though it is privileged
  bool forced_cpuid(cpu::Vcpu& cpu);
  cpu::Outcome emulate(cpu::Vcpu& cpu, bool* done);
  bool iopl_allows(cpu::Vcpu& cpu);
  bool port_allowed(cpu::Vcpu& cpu, const isa::Insn& insn);
  bool emulated_read_control(cpu::Vcpu& cpu, unsigned number, u64* value);
  bool emulated_write_control(cpu::Vcpu& cpu, unsigned number, u64 value);
  bool emulated_msr_read(cpu::Vcpu& cpu, u32 index, u64* value);
  bool emulated_msr_write(cpu::Vcpu& cpu, u32 index, u64 value);

  // The hypercalls, by file.
  Status multicall(cpu::Vcpu& cpu, Gva list, u64 count);
  Status set_trap_table(cpu::Vcpu& cpu, Gva list);
  Status set_callbacks(cpu::Vcpu& cpu, const Arguments& a);
  Status callback_op(cpu::Vcpu& cpu, u64 command, Gva argument);
  Status set_segment_base(cpu::Vcpu& cpu, u64 which, u64 base);
  Status set_debugreg(cpu::Vcpu& cpu, u64 number, u64 value);
  Status vm_assist(u64 command, u64 type);
  Status fpu_taskswitch(cpu::Vcpu& cpu, bool set);

  Status set_gdt(cpu::Vcpu& cpu, Gva list, u64 entries);
  bool install_gdt(cpu::Vcpu& cpu, u32 vcpu, const Mfn* frames, u32 entries);
  Status set_ldt(cpu::Vcpu& cpu, Gva base, u64 entries);
  void release_ldt(cpu::Vcpu& cpu);
  Status update_descriptor(cpu::Vcpu& cpu, Gpa at, u64 descriptor);

  Status mmu_update(cpu::Vcpu& cpu, const Arguments& a);
  Status mmu_update_one(cpu::Vcpu& cpu, const mmu_update_t& request);
  Status mmuext_op(cpu::Vcpu& cpu, const Arguments& a);
  Status mmuext_one(cpu::Vcpu& cpu, const mmuext_op_t& op);
  Status update_va_mapping(cpu::Vcpu& cpu, Gva linear, u64 value, u64 flags);
  Status flush_after(cpu::Vcpu& cpu, Gva linear, u64 flags);
  Status pin(cpu::Vcpu& cpu, Mfn mfn, unsigned level);
  Status unpin(cpu::Vcpu& cpu, Mfn mfn);
  Status new_root(cpu::Vcpu& cpu, Mfn mfn);         // the caller holds lock_
  Status new_root_locked(cpu::Vcpu& cpu, Mfn mfn);  // takes it
  Status new_user_root(cpu::Vcpu& cpu, Mfn mfn);
  bool same_upper_half(Mfn root, const u64* other) const;
  u64* entry_of(cpu::Vcpu& cpu, Gva linear, Mfn* table, unsigned* index);

  Status memory_op(cpu::Vcpu& cpu, u64 command, Gva argument);
  Status reservation(cpu::Vcpu& cpu, u64 command, Gva argument);
  Status memory_map(cpu::Vcpu& cpu, Gva argument);

  // grants.cpp; results of single operations are GNTST_*.
  struct GrantMap {
    u32 ref, flags;  // GNTMAP_*: the mappings that are left
    Mfn frame;
  };
  Status grant_table_op(cpu::Vcpu& cpu, u64 command, Gva argument, u64 count);
  bool hold(cpu::Vcpu& cpu, Mfn frame, bool writes);
  void let_go(cpu::Vcpu& cpu, Mfn frame, bool writes);
  i16 granted(u32 ref, bool writes, Mfn* frame, u16** flags, domid_t to = kDomain);
  bool named_entry(cpu::Vcpu& cpu, u64 address, bool is_entry, Mfn* table, unsigned* index);
  i16 set_up_grants(cpu::Vcpu& cpu, const gnttab_setup_table& op);
  i16 map_grant(cpu::Vcpu& cpu, gnttab_map_grant_ref& op);
  i16 unmap_grant(cpu::Vcpu& cpu, const gnttab_unmap_grant_ref& op);
  i16 unmap_host(cpu::Vcpu& cpu, GrantMap& map, u64 address, u64 instead);
  i16 replace_grant(cpu::Vcpu& cpu, const gnttab_unmap_and_replace& op);
  i16 copy_grant(cpu::Vcpu& cpu, const gnttab_copy& op);
  void end_grant_if_unmapped(u32 handle);
  void end_grant(u32 ref);
  void release(cpu::Vcpu& cpu, const Held& grant);

  Status event_channel_op(cpu::Vcpu& cpu, u64 command, Gva argument);
  void sent(cpu::Vcpu& cpu, const Channel& to);
  Status sched_op(cpu::Vcpu& cpu, u64 command, Gva argument);
  Status block(cpu::Vcpu& cpu);
  Status poll(cpu::Vcpu& cpu, Gva argument);
  Status shutdown(cpu::Vcpu& cpu, u32 reason);
  Status vcpu_op(cpu::Vcpu& cpu, u64 command, u64 vcpu, Gva argument);
  Status initialise(cpu::Vcpu& cpu, u32 vcpu, Gva argument);
  Status bring_up(u32 vcpu);
  Status register_info(cpu::Vcpu& cpu, u32 vcpu, Gva argument);
  void set_timer(cpu::Vcpu& cpu, u64 absolute_ns);
  void arm(cpu::Vcpu& cpu);
  u64 ticks_at(u64 ns) const;
  void write_time(cpu::Vcpu& cpu, u32 vcpu);
  vcpu_time_info_t time_line(const cpu::Vcpu& cpu) const;
  void change_runstate(cpu::Vcpu& cpu, int to);
  bool poll_satisfied(cpu::Vcpu& cpu);

  Status xen_version(cpu::Vcpu& cpu, u64 command, Gva argument);
  Status console_io(cpu::Vcpu& cpu, u64 command, u64 count, Gva buffer);
  Status physdev_op(cpu::Vcpu& cpu, u64 command, Gva argument);

  void notify(u32 vcpu);
  void receive(cpu::Vcpu& cpu);  // interrupts of the machine, which are the hypervisor's

  GuestMemory& ram_;
  const Layout layout_;
  const cpu::Clock& clock_;
  ClockScale scale_;
  u64 wall_ns_;
  Host& host_;
  Frames frames_;
  std::vector<std::unique_ptr<VcpuState>> vcpu_;
  std::vector<cpu::Vcpu*> cpus_;  // by number; filled in as each is first seen
  EventChannels events_;
  std::unique_ptr<Console> console_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<BackEnds> back_ends_;
  Port store_port_ = 0, console_port_ = 0;
  std::atomic<u64> assists_{0};
  u32 grant_frames_ = 0;
  std::map<u32, GrantMap> grants_;  // by handle
  u32 next_grant_ = 1;
  std::vector<u32> held_;      // by reference: how often back ends hold it
  std::vector<Mfn> released_;  // by the balloon
  std::mutex lock_, events_lock_;

 public:
  void add_vcpu(cpu::Vcpu& cpu) { cpus_[cpu.index] = &cpu; }
};

}  // namespace trapline::para::xen
