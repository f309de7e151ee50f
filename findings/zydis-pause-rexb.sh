#!/bin/sh
# Zydis decodes F3 41 90 as PAUSE; a CPU executes XCHG R8D, EAX. PAUSE is F3 90 alone: with REX.B the opcode 90 names R8
# (Intel SDM vol. 2B PAUSE and XCHG, AMD APM vol. 3 the same), and F3 is then ignored as in front of any XCHG. Who removes
# or skips PAUSEs by this decoding changes what the program computes.
#
# Fetches the pinned Debian packages of Zydis 4.0.0 into a temporary folder, decodes the three bytes with it and runs them.
# Exit code 0: the library still says PAUSE and the CPU still exchanges; 1: one of them does not; 2: cannot be tried.
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
  printf("this CPU: RAX 1 -> %lu, R8 2 -> %lu\n", rax, r8);
  return !(insn.mnemonic == ZYDIS_MNEMONIC_PAUSE && rax == 2 && r8 == 1);
}
C
cc -O1 -I root/usr/include probe.c -o probe -L root/usr/lib/x86_64-linux-gnu -lZydis -Wl,-rpath,"$dir/root/usr/lib/x86_64-linux-gnu" ||
  exit 2
LD_LIBRARY_PATH="$dir/root/usr/lib/x86_64-linux-gnu" ./probe
