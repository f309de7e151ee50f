#!/bin/sh
# IMUL with two operands: Intel's processors compute SF, ZF, AF and PF anew, AMD's keep what was there.
#
# Both manuals call the four undefined (SF in the SDM: not on all processors). Seen on AMD Zen 4 (family 25) and Zen 5
# (family 26): kept. So code that emulates IMUL by the host's must load the guest's flags first, or chance gets into
# them: in an engine that is to repeat a run, the two runs differ.
#
# Needs gcc. Prints one line; ends with 1 when this processor does otherwise.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/imul.c" <<'C'
#include <cpuid.h>
#include <stdio.h>
#include <string.h>

#define FOUR 0xd4ul  // SF, ZF, AF, PF

static unsigned long flags_after(unsigned long before, unsigned long a, unsigned long b) {
  unsigned long f = before | 2;
  __asm__ volatile("push %0; popfq; imul %2, %1; pushfq; pop %0" : "+r"(f), "+r"(a) : "r"(b) : "cc", "memory");
  return f & FOUR;
}

int main(void) {
  unsigned a, b, c, d;
  char vendor[13] = {0};
  __cpuid(0, a, b, c, d);
  memcpy(vendor, &b, 4), memcpy(vendor + 4, &d, 4), memcpy(vendor + 8, &c, 4);
  __cpuid(1, a, b, c, d);
  const unsigned family = (a >> 8 & 15) + (a >> 20 & 0xff), model = (a >> 4 & 15) | (a >> 12 & 0xf0);
  const unsigned long values[] = {0, 1, 3, ~0ul, 0x8000000000000000, 0x123456789abcdef};
  int kept = 1;
  for (unsigned i = 0; i < 6; i++)
    for (unsigned j = 0; j < 6; j++)
      for (unsigned long bits = 0; bits < 16; bits++) {
        const unsigned long before = (bits & 1) << 7 | (bits & 2) << 5 | (bits & 4) << 2 | (bits & 8) >> 1;
        kept &= flags_after(before, values[i], values[j]) == before;
      }
  const int amd = !strcmp(vendor, "AuthenticAMD") || !strcmp(vendor, "HygonGenuine");
  printf("%s family %u model %u: IMUL %s SF, ZF, AF and PF\n", vendor, family, model, kept ? "keeps" : "changes");
  return kept != amd;
}
C
gcc -O1 -o "$dir/imul" "$dir/imul.c"
"$dir/imul"
