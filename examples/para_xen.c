// The same kernel for Xen's interface: it runs deprivileged by agreement. Every critical instruction of critical.c is a
// variable or a hypercall here, every privileged one too, so nothing has to trap and nothing has to be emulated. What is
// left is RDTSC, which Xen lets guests execute. Headers of the interface: Debian's libxen-dev.
#include <stdint.h>
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#include <xen/callback.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/xen.h>

#include "machine.h"

enum {
  kInterrupts = 1 << 9,
  kPage = 4096,
  kTick = 1000000 /* ns */,
  kPresent = 0x67 /* writable, the guest's, A, D */
};

start_info_t* start_info;
static struct table_pointer idt;
static evtchn_port_t timer_port, own_port;
static volatile unsigned own_events;
// Xen's frames take the places of these pages of the kernel's.
static u8 shared_page[kPage] __attribute__((aligned(4096))), grant_page[kPage] __attribute__((aligned(4096)));
static u8 given[kPage] __attribute__((aligned(4096))), taken[kPage] __attribute__((aligned(4096)));

static shared_info_t* shared(void) { return (shared_info_t*)shared_page; }
static vcpu_info_t* vcpu(void) { return &shared()->vcpu_info[0]; }

#define HYPERCALL(number, a, b, c)                                 \
  ({                                                               \
    u64 a_ = (u64)(a), b_ = (u64)(b), c_ = (u64)(c);               \
    long result_;                                                  \
    __asm__ volatile("call hypercall_page + %c[n] * 32"            \
                     : "=a"(result_), "+D"(a_), "+S"(b_), "+d"(c_) \
                     : [n] "i"(number)                             \
                     : "rcx", "r8", "r9", "r10", "r11", "memory"); \
    result_;                                                       \
  })

// -- Console
void say(const char* text) {
  u64 n = 0;
  while (text[n]) n++;
  HYPERCALL(__HYPERVISOR_console_io, CONSOLEIO_write, n, text);
}

void end_machine(int wrong) {
  struct sched_shutdown how = {wrong ? SHUTDOWN_crash : SHUTDOWN_poweroff};
  for (;;) HYPERCALL(__HYPERVISOR_sched_op, SCHEDOP_shutdown, &how, 0);
}

// -- Interrupts are events, and the flag is a byte that both sides read
u64 save_flags(void) { return vcpu()->evtchn_upcall_mask ? 0 : kInterrupts; }
void interrupts_off(void) {
  vcpu()->evtchn_upcall_mask = 1;
  __asm__ volatile("" ::: "memory");
}
void interrupts_on(void) {
  vcpu()->evtchn_upcall_mask = 0;
  __asm__ volatile("mfence" ::: "memory");
  // What has come meanwhile is delivered on the way out of any hypercall.
  if (vcpu()->evtchn_upcall_pending) HYPERCALL(__HYPERVISOR_xen_version, 0, 0, 0);
}
void restore_flags(u64 flags) { flags& kInterrupts ? interrupts_on() : interrupts_off(); }
void wait_for_interrupt(void) { HYPERCALL(__HYPERVISOR_sched_op, SCHEDOP_block, 0, 0); }

// -- What a machine of one's own keeps in registers, the kernel knows itself. "Ring 0" is what Xen calls kernel mode; the
// selector of its code shows 3, as is true, and the kernel leaves those two bits out.
struct table_pointer where_is_idt(void) {
  return idt;
}
u16 code_selector(void) { return FLAT_KERNEL_CS & ~3; }

static void replace(void* page, u64 machine_address) {
  HYPERCALL(__HYPERVISOR_update_va_mapping, page, machine_address | kPresent, UVMF_INVLPG);
}

// The table has one gate, the timer's; it becomes the handler of events.
void set_idt(const struct table_pointer* table) {
  idt = *table;
  replace(shared_page, start_info->shared_info);
  struct callback_register on_event = {CALLBACKTYPE_event, 0, (xen_callback_t)timer_entry};
  HYPERCALL(__HYPERVISOR_callback_op, CALLBACKOP_register, &on_event, 0);
}

// Comes with RCX and R11 pushed on top of what an interrupt pushes, and goes by a hypercall in place of IRET: no
// instruction of that name restores IF in ring 3.
__asm__(
    ".text\n.global timer_entry\n"
    "timer_entry: pop %rcx; pop %r11\n"
    "push %rax; push %rcx; push %rdx; push %rsi; push %rdi; push %r8; push %r9; push %r10; push %r11\n"
    "call on_events\n"
    "pop %r11; pop %r10; pop %r9; pop %r8; pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rax\n"
    "push $0\n"  // flags: nothing special; the page pushes RCX, R11 and RAX itself
    "jmp hypercall_page + 23 * 32\n");
_Static_assert(__HYPERVISOR_iret == 23, "in the jump above");

static int take(evtchn_port_t port) {
  const u64 bit = 1ul << port % 64;
  return (__atomic_fetch_and(&shared()->evtchn_pending[port / 64], ~bit, __ATOMIC_SEQ_CST) & bit) != 0;
}

void on_events(void) {
  vcpu()->evtchn_upcall_pending = 0;
  __atomic_exchange_n(&vcpu()->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
  if (timer_port && take(timer_port)) timer_tick();
  if (own_port && take(own_port)) own_events++;
}

// -- Time: what the hypervisor writes, as KVM's page, and one alarm at a time
static u64 now_ns(void) {
  const volatile vcpu_time_info_t* t = &vcpu()->time;
  u32 version, low, high;
  u64 ns;
  do {
    version = t->version;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
    u64 ticks = ((u64)high << 32 | low) - t->tsc_timestamp;
    ticks = t->tsc_shift < 0 ? ticks >> -t->tsc_shift : ticks << t->tsc_shift;
    ns = t->system_time + (u64)((unsigned __int128)ticks * t->tsc_to_system_mul >> 32);
  } while ((version & 1) || version != t->version);
  return ns;
}

static void set_alarm(void) { HYPERCALL(__HYPERVISOR_set_timer_op, now_ns() + kTick, 0, 0); }
void end_of_interrupt(void) { set_alarm(); }
void start_timer(void) {
  struct evtchn_bind_virq timer = {VIRQ_TIMER, 0, 0};
  HYPERCALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq, &timer, 0);
  timer_port = timer.port;
  HYPERCALL(__HYPERVISOR_vcpu_op, VCPUOP_stop_periodic_timer, 0, 0);
  set_alarm();
}

// -- What only this build can
static void event_to_myself(void) {
  struct evtchn_bind_ipi own = {0, 0};
  HYPERCALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, &own, 0);
  own_port = own.port;
  struct evtchn_send send = {own.port};
  interrupts_off();
  HYPERCALL(__HYPERVISOR_event_channel_op, EVTCHNOP_send, &send, 0);
  check("an event waits while events are masked", own_events == 0);
  interrupts_on();
  check("and comes then", own_events == 1);
}

// A page for a domain by its number, which has Xen copy it; the only domain there is is this one.
static void grant(void) {
  enum { kRef = 8 };
  u64 frame;
  gnttab_setup_table_t table = {.dom = DOMID_SELF, .nr_frames = 1};
  set_xen_guest_handle(table.frame_list, &frame);
  HYPERCALL(__HYPERVISOR_grant_table_op, GNTTABOP_setup_table, &table, 1);
  replace(grant_page, frame * kPage);
  struct evtchn_alloc_unbound port = {DOMID_SELF, DOMID_SELF, 0};
  HYPERCALL(__HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound, &port, 0);
  struct evtchn_status who = {.dom = DOMID_SELF, .port = port.port};
  HYPERCALL(__HYPERVISOR_event_channel_op, EVTCHNOP_status, &who, 0);

  const u64* p2m = (const u64*)start_info->mfn_list;
  grant_entry_v1_t* entry = (grant_entry_v1_t*)grant_page + kRef;
  entry->domid = who.u.unbound.dom;
  entry->frame = (u32)p2m[(u64)given / kPage];
  __atomic_store_n(&entry->flags, GTF_permit_access | GTF_readonly, __ATOMIC_RELEASE);
  given[5] = 42;
  gnttab_copy_t copy = {.len = 16, .flags = GNTCOPY_source_gref};
  copy.source.u.ref = kRef, copy.source.domid = who.u.unbound.dom;
  copy.dest.u.gmfn = p2m[(u64)taken / kPage], copy.dest.domid = DOMID_SELF;
  HYPERCALL(__HYPERVISOR_grant_table_op, GNTTABOP_copy, &copy, 1);
  check("a page that is granted can be copied", copy.status == GNTST_okay && taken[5] == 42);
  copy.flags = GNTCOPY_dest_gref;
  copy.dest.u.ref = kRef, copy.dest.domid = who.u.unbound.dom;
  copy.source.u.gmfn = p2m[(u64)taken / kPage], copy.source.domid = DOMID_SELF;
  HYPERCALL(__HYPERVISOR_grant_table_op, GNTTABOP_copy, &copy, 1);
  check("and not written to, which it was not granted for", copy.status != GNTST_okay);
}

void tell_more(void) {
  const u64 first = now_ns();
  for (unsigned i = 0; i < 5; i++) wait_for_interrupt();
  check("time passes as the timer's", now_ns() - first >= 3000000);
  event_to_myself();
  grant();
}
