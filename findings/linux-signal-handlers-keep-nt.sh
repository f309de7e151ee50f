#!/bin/sh
# A signal handler on Linux begins with NT and AC as the program had them, and in 64-bit mode IRETQ is a fault while NT is set.
#
# One would expect a handler to begin with clean flags: Linux clears DF, RF and TF for it (arch/x86/kernel/signal.c), and every
# entry to the kernel clears NT. But what comes back into the registers for the handler is what was saved of the program, and any
# program may set NT with POPF. So a handler that goes on by IRETQ (user-mode hypervisors, coroutines, checkpointing) works for
# years, and dies of #GP(0) with the one program whose NT is set. SDM Vol. 2A, IRET: NT = 1 in IA-32e mode. The same holds for AC:
# with alignment checked, the handler's own unaligned accesses are SIGBUS. (To clear NT in the saved context is no help: sigreturn takes it from the handler.)
#
# Seen with Linux 6.1.176 of Debian 12 under QEMU 7.2's TCG, and with Linux 6.18 on Intel's family 6 model 207. Needs
# qemu-system-x86, gcc, cpio and apt-get; takes a minute. Prints what the handler found; ends with 1 when it is otherwise, 77 when
# it cannot be seen here.
set -eu
for tool in qemu-system-x86_64 gcc cpio; do command -v $tool >/dev/null || { echo "no $tool" && exit 77; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get download -qq linux-image-6.1.0-50-cloud-amd64=6.1.176-1 2>/dev/null || { echo "the package is not to be had" && exit 77; }
dpkg-deb -x ./*.deb .
cat >init.c <<'C'
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/reboot.h>
#include <ucontext.h>
#include <unistd.h>

static volatile unsigned long flags;
static volatile int faulted;

static void on_undefined(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info;
  unsigned long now;
  asm volatile("pushfq; pop %0" : "=r"(now));
  flags = now;
  // To the next line, as IRETQ goes to any other.
  asm volatile(
      "mov %%ss, %%eax; push %%rax; lea 8(%%rsp), %%rax; push %%rax; pushq $2; mov %%cs, %%eax; push %%rax;"
      "lea 1f(%%rip), %%rax; push %%rax; iretq; 1:" : : : "rax", "memory", "cc");
  ((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void on_fault(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  faulted++;
  if (faulted > 1) _exit(1);
  asm volatile("pushq $2; popfq" : : : "memory", "cc");  // sigreturn leaves NT as it is now; without it the IRETQ goes on
}

int main(void) {
  struct sigaction undefined = {.sa_sigaction = on_undefined, .sa_flags = SA_SIGINFO};
  struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGILL, &undefined, 0);
  sigaction(SIGSEGV, &fault, 0);
  asm volatile("pushfq; orq $0x4400, (%%rsp); popfq; ud2; pushfq; andq $~0x4400, (%%rsp); popfq" : : : "memory", "cc");
  printf("in the handler: NT %d, DF %d; IRETQ %s\n", !!(flags & 0x4000), !!(flags & 0x400), faulted ? "faults" : "goes on");
  fflush(stdout);
  sleep(1);
  if (getpid() == 1) reboot(RB_POWER_OFF);
  return 0;
}
C
gcc -O1 -mno-red-zone -static -o init init.c
echo init | cpio --quiet -o -H newc >initrd
timeout 200 qemu-system-x86_64 -accel tcg -m 256 -display none -serial stdio -monitor none -no-reboot -kernel boot/vmlinuz-* \
  -initrd initrd -append "console=ttyS0 quiet" >log 2>&1 </dev/null || true
tr -d '\r' <log | grep -a 'in the handler' || { echo "no answer" && exit 1; }
grep -aq 'NT 1, DF 0; IRETQ faults' log
