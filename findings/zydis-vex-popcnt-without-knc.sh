#!/bin/sh
# Zydis 4.0.0 (Debian 12: libzydis-dev 4.0.0-1) decodes VEX-coded POPCNT, TZCNT and LZCNT with ZYDIS_DECODER_MODE_KNC
# switched off, and gives them the mnemonics of the instructions that every CPU has.
#
# A good guess would be that the mode decides: these encodings are Knights Corner's, whose other encodings (MVEX) do
# vanish with it. It only decides how an EVEX prefix reads. Who copies or emulates by mnemonic executes POPCNT where the
# CPU raises #UD. The ISA extension of the decoded instruction (KNC) is what tells them apart.
#
# Printed here: "POPCNT decodes as popcnt, extension KNC" and so on, "the CPU: signal 4" for each (AMD family 26; any x86-64
# CPU but Knights Corner). Fails if Zydis or the CPU says something else.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for package in libzydis-dev=4.0.0-1 libzydis4.0=4.0.0-1 libzycore-dev=1.4.1-1 libzycore1.4=1.4.1-1; do
  apt-get download -qq "$package" >/dev/null 2>&1 || { echo "cannot fetch $package" >&2; exit 2; }
done
for package in *.deb; do dpkg-deb -x "$package" root; done
cat >probe.c <<'C'
#include <Zydis/Zydis.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static sigjmp_buf back;
static void on_signal(int number) { siglongjmp(back, number); }

int main(void) {
  static const struct {
    const char *name;
    unsigned char bytes[4];
  } cases[] = {{"popcnt", {0xC5, 0xFA, 0xB8, 0xC1}}, {"tzcnt", {0xC5, 0xFA, 0xBC, 0xC1}}, {"lzcnt", {0xC5, 0xFA, 0xBD, 0xC1}}};
  unsigned char *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) return 2;
  signal(SIGILL, on_signal);
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
  int changed = 0;
  for (unsigned i = 0; i < 3; i++) {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, cases[i].bytes, 4, &insn, operands))) {
      printf("%s: does not decode\n", cases[i].name);
      changed = 1;
      continue;
    }
    const char *mnemonic = ZydisMnemonicGetString(insn.mnemonic);
    memcpy(code, cases[i].bytes, 4);
    code[4] = 0xC3;
    volatile int number = sigsetjmp(back, 1);
    if (number == 0) ((void (*)(void))code)();
    printf("VEX-coded %s decodes as %s, extension %s; the CPU: signal %d\n", cases[i].name, mnemonic,
           ZydisISAExtGetString(insn.meta.isa_ext), number);
    changed |= strcmp(mnemonic, cases[i].name) != 0 || insn.meta.isa_ext != ZYDIS_ISA_EXT_KNC || number != SIGILL;
  }
  return changed;
}
C
gcc -O1 -Iroot/usr/include -o probe probe.c -Lroot/usr/lib/x86_64-linux-gnu -lZydis -Wl,-rpath,"$work/root/usr/lib/x86_64-linux-gnu"
./probe
