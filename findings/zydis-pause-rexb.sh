#!/bin/sh
# Zydis decodes F3 41 90 as PAUSE. AMD's CPUs execute XCHG R8D, EAX, as the manuals have it (Intel SDM vol. 2B and AMD APM
# vol. 3, PAUSE and XCHG: with REX.B the opcode 90 names R8, and F3 is then ignored as in front of any XCHG). Intel's CPUs
# execute PAUSE, so the same three bytes leave other values in RAX and R8 on one vendor's CPUs than on the other's. Who
# removes, skips or translates PAUSEs by this decoder changes what the program computes on AMD's; who follows the manuals'
# text does so on Intel's.
#
# Fetches the pinned Debian packages of Zydis 4.0.0 into a temporary folder, decodes the three bytes with it and runs them.
# Exit code 0: the library still says PAUSE, and this CPU does as its vendor's did (seen: Zen 4 and Zen 5 exchange, Intel
# family 6 model 207 does not); 1: one of them does not; 2: cannot be tried.
set -eu
version=4.0.0-1
zycore=1.4.1-1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get download -qq "libzydis4.0=$version" "libzydis-dev=$version" "libzycore1.4=$zycore" "libzycore-dev=$zycore" || exit 2
for package in *.deb; do dpkg-deb -x "$package" root; done
cat >probe.c <<'C'
#include <Zydis/Zydis.h>
#include <cpuid.h>
#include <stdio.h>
#include <string.h>
int main(void) {
  static const unsigned char bytes[] = {0xf3, 0x41, 0x90};
  ZydisDecoder decoder;
  ZydisDecodedInstruction insn;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, 0, bytes, sizeof bytes, &insn))) return 2;
  unsigned long rax = 1, r8 = 2;
  __asm__ volatile("mov %1, %%r8; .byte 0xf3, 0x41, 0x90; mov %%r8, %1" : "+a"(rax), "+r"(r8) : : "r8");
  const ZyanU64 version = ZydisGetVersion();
  printf("Zydis %u.%u.%u: f3 41 90 is %s\n", (unsigned)ZYDIS_VERSION_MAJOR(version), (unsigned)ZYDIS_VERSION_MINOR(version),
         (unsigned)ZYDIS_VERSION_PATCH(version), ZydisMnemonicGetString(insn.mnemonic));
  unsigned a, b, c, d;
  __cpuid(0, a, b, c, d);
  const int intel = b == 0x756e6547, amd = b == 0x68747541; /* Genu, Auth */
  printf("this CPU (%s): RAX 1 -> %lu, R8 2 -> %lu\n", intel ? "Intel" : amd ? "AMD" : "another vendor's", rax, r8);
  if (!intel && !amd) return 2;
  return !(insn.mnemonic == ZYDIS_MNEMONIC_PAUSE && (amd ? rax == 2 && r8 == 1 : rax == 1 && r8 == 2));
}
C
cc -O1 -I root/usr/include probe.c -o probe -L root/usr/lib/x86_64-linux-gnu -lZydis -Wl,-rpath,"$dir/root/usr/lib/x86_64-linux-gnu" ||
  exit 2
LD_LIBRARY_PATH="$dir/root/usr/lib/x86_64-linux-gnu" ./probe
