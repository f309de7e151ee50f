// The same kernel for KVM's interface. KVM virtualizes the CPU, so the kernel may keep its critical instructions; what is
// asked of the hypervisor is what the machine does badly: time. Linux Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.
#include "critical.c"

enum { kBase = 0x40000000, kFeatureClock = 1 << 3, kSystemTime = 0x4b564d01, kPollIrq = 1, kNone = 9999 };

// What the hypervisor writes: time = system_time + (TSC - tsc_timestamp) scaled.
static volatile struct {
  u32 version, pad;
  u64 tsc_timestamp, system_time;
  u32 multiplier;
  signed char shift;
  u8 flags, pads[2];
} clock_page __attribute__((aligned(64)));

static void cpuid(u32 leaf, u32 r[4]) {
  __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(0));
}

static u64 now_ns(void) {
  u32 version, low, high;
  u64 ns;
  do {
    version = clock_page.version;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
    u64 ticks = ((u64)high << 32 | low) - clock_page.tsc_timestamp;
    ticks = clock_page.shift < 0 ? ticks >> -clock_page.shift : ticks << clock_page.shift;
    ns = clock_page.system_time + (u64)((unsigned __int128)ticks * clock_page.multiplier >> 32);
  } while ((version & 1) || version != clock_page.version);
  return ns;
}

// VMCALL is Intel's, VMMCALL AMD's; a hypervisor takes the one of its CPU, Trapline either.
static long hypercall(int amd, u64 number) {
  long result;
  if (amd)
    __asm__ volatile("vmmcall" : "=a"(result) : "a"(number) : "memory");
  else
    __asm__ volatile("vmcall" : "=a"(result) : "a"(number) : "memory");
  return result;
}

void tell_more(void) {
  u32 r[4], features[4];
  cpuid(kBase, r);
  const int kvm = r[1] == 0x4b4d564b && r[2] == 0x564b4d56 && r[3] == 0x4d;  // "KVMKVMKVM"
  check("the hypervisor has KVM's interface", kvm);
  if (!kvm) return;
  cpuid(kBase + 1, features);
  check("with its clock", (features[0] & kFeatureClock) != 0);
  const u64 page = (u64)&clock_page | 1;
  __asm__ volatile("wrmsr" ::"a"((u32)page), "d"((u32)(page >> 32)), "c"(kSystemTime) : "memory");
  const u64 first = now_ns();
  for (unsigned i = 0; i < 5; i++) wait_for_interrupt();  // five ticks of a millisecond
  const u64 passed = now_ns() - first;
  check("whose time passes as the timer's", passed >= 3000000);
  for (int amd = 0; amd < 2; amd++) {
    check(amd ? "a hypercall by VMMCALL" : "a hypercall by VMCALL", hypercall(amd, kPollIrq) == 0);
    check("one that is not there is refused", hypercall(amd, kNone) == -1000);
  }
}
