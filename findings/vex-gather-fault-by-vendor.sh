#!/bin/sh
# A VEX-coded gather whose third element faults: what of its mask and destination has changed when the handler looks.
#
# The manuals agree that elements before the fault are done and their mask elements are zero. Of the rest Intel's
# pseudocode (SDM vol. 2, VPGATHERDD) makes the mask all ones or zeros per element and clears both upper halves before it
# begins. AMD Zen 4 and Zen 5 leave mask elements that were not reached, and the upper halves, as they were. Restarted,
# both finish alike; an emulator compared with the host in the handler sees it.
#
# Needs gcc and a processor with AVX2. Prints one line; ends with 1 when this processor does otherwise.
set -eu
grep -qw avx2 /proc/cpuinfo || { echo "this processor has no AVX2: nothing to see"; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/gather.c" <<'C'
#define _GNU_SOURCE
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static unsigned data[8] = {0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7}, out[8];
static unsigned mask[8] = {0x80000001, 5, 0x80000001, 0x80000001, 0x80000001, 0x80000001, 0x80000001, 0x80000001}, left[8];
static unsigned long next;

static void on_fault(int s, siginfo_t* i, void* context) {
  (void)s, (void)i;
  ((ucontext_t*)context)->uc_mcontext.gregs[16] = (long)next;  // RIP: behind the gather, its registers as they are
}

int main(void) {
  unsigned a, b, c, d;
  char vendor[13] = {0};
  __cpuid(0, a, b, c, d);
  memcpy(vendor, &b, 4), memcpy(vendor + 4, &d, 4), memcpy(vendor + 8, &c, 4);
  __cpuid(1, a, b, c, d);
  char* page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(page + 4096, 4096);
  const unsigned index[8] = {0, 4, 4096, 12};
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, 0);
  __asm__ volatile(
      "vmovdqu %3, %%ymm0; vmovdqu %4, %%ymm1; vmovdqu %5, %%ymm2\n"
      "lea 1f(%%rip), %%rax; mov %%rax, %2\n"
      "vpgatherdd %%xmm2, (%6,%%xmm1), %%xmm0\n"
      "1: vmovdqu %%ymm0, %0; vmovdqu %%ymm2, %1; vzeroupper"
      : "=m"(out), "=m"(left), "=m"(next)
      : "m"(data), "m"(index), "m"(mask), "r"(page)
      : "rax", "xmm0", "xmm1", "xmm2", "memory");
  const int amd = !strcmp(vendor, "AuthenticAMD") || !strcmp(vendor, "HygonGenuine");
  const unsigned rest = amd ? 0x80000001 : 0xffffffff, upper = amd ? 0x80000001 : 0, above = amd ? 0xd4 : 0;
  const int as_said = out[0] == 0 && out[1] == 0xd1 && left[0] == 0 && left[1] == 0 && left[2] == rest &&
                      left[3] == rest && left[4] == upper && out[4] == above;
  printf("%s family %u: mask %x %x %x %x | %x, destination %x %x %x %x | %x: %s\n", vendor,
         (a >> 8 & 15) + (a >> 20 & 0xff), left[0], left[1], left[2], left[3], left[4], out[0], out[1], out[2], out[3],
         out[4], as_said ? "as said above" : "something else");
  return !as_said;
}
C
gcc -O1 -mavx2 -o "$dir/gather" "$dir/gather.c"
"$dir/gather"
