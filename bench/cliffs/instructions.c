// One sort of instruction after the other, four to a turn, with plain operands.
#define _GNU_SOURCE
#include <cpuid.h>
#include <string.h>

#include "cliffs.h"

// RDI: a buffer of two pages; RSI: one behind it.
#define ROW(name, text)                                                                                           \
  static void name(long n) {                                                                                      \
    register char* data asm("rdi") = buffer;                                                                      \
    register char* other asm("rsi") = buffer + page;                                                              \
    asm volatile("1:\n" text "\n" text "\n" text "\n" text                                                        \
                 "\n"                                                                                             \
                 "dec %[n]\n"                                                                                     \
                 "jnz 1b"                                                                                         \
                 : [n] "+r"(n), "+r"(data), "+r"(other)                                                           \
                 :                                                                                                \
                 : "memory", "cc", "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r15", "xmm0", "xmm1", "xmm2"); \
  }

ROW(alu, "add %%rax, %%rcx")
ROW(high_byte, "add %%ah, %%dh")
ROW(r10_r15, "lea (%%r10,%%r15), %%r11")
ROW(xchg_mem, "xchg %%rax, (%%rdi)")
ROW(lock_inc, "lock incl (%%rdi)")
ROW(lock_cmpxchg, "lock cmpxchg %%rcx, (%%rdi)")
ROW(cmpxchg16b, "lock cmpxchg16b (%%rdi)")
ROW(bt_register, "mov $100, %%ecx\nbt %%rcx, (%%rdi)")
ROW(bts_register, "mov $100, %%ecx\nlock bts %%rcx, (%%rdi)")
ROW(div32, "xor %%edx, %%edx\nmov $77777, %%eax\nmov $7, %%ecx\ndiv %%ecx")
ROW(push_pop, "push %%rax\npop %%rcx")
ROW(push_mem, "push (%%rdi)\npop 8(%%rdi)")
ROW(push16, "pushw %%ax\npopw %%ax")
ROW(pushf_popf, "pushf\npopf")
ROW(enter_leave, "enter $16, $0\nleave")
ROW(enter_1, "enter $16, $1\nleave")
ROW(lahf_sahf, "lahf\nsahf")
ROW(xlat, "mov %%rdi, %%rdx\nxor %%eax, %%eax\nxchg %%rbx, %%rdx\nxlatb\nxchg %%rbx, %%rdx")
ROW(cld_std, "std\ncld")
ROW(loop_insn, "mov $1, %%ecx\nloop 2f\n2:")
ROW(loope_insn, "mov $9, %%ecx\nloope 2f\n2:")
ROW(jrcxz, "xor %%ecx, %%ecx\njrcxz 2f\n2:")
ROW(rdtsc, "rdtsc")
ROW(rdtscp, "rdtscp")
ROW(cpuid, "xor %%eax, %%eax\nmov %%rbx, %%r8\ncpuid\nmov %%r8, %%rbx")
ROW(xgetbv, "xor %%ecx, %%ecx\nxgetbv")
ROW(pause_insn, "pause")
ROW(mfence, "mfence")
ROW(lfence, "lfence")
ROW(clflush, "clflush (%%rdi)")
ROW(prefetch, "prefetcht0 (%%rdi)")
ROW(movnti, "movnti %%rax, (%%rdi)")
ROW(rdrand, "rdrand %%rax")
ROW(mov_from_ds, "mov %%ds, %%eax")
ROW(mov_to_ds, "mov %%ds, %%eax\nmov %%eax, %%ds")
ROW(fs_load, "mov %%fs:0, %%rax")
ROW(rdfsbase, "rdfsbase %%rax")
ROW(wrfsbase, "rdfsbase %%rax\nwrfsbase %%rax")
ROW(lsl_insn, "mov %%cs, %%eax\nlsl %%eax, %%ecx")
ROW(address32, "mov (%%edi), %%eax")
ROW(xadd, "xadd %%rax, (%%rdi)")
ROW(shld, "shld $3, %%rax, (%%rdi)")
ROW(rcl, "rcl $3, %%rax")
ROW(popcnt, "popcnt (%%rdi), %%rax")
ROW(pext_insn, "pext %%rax, %%rcx, %%rdx")
ROW(crc32, "crc32b (%%rdi), %%eax")
ROW(movbe, "movbe (%%rdi), %%rax")
ROW(adcx, "adcx (%%rdi), %%rax")
ROW(sse_add, "addps %%xmm1, %%xmm0")
ROW(sse_load, "addps (%%rdi), %%xmm0")
ROW(sse_to_gpr, "movq %%xmm0, %%rax\nmovq %%rax, %%xmm0")
ROW(sse_cmp, "ucomiss %%xmm0, %%xmm1")
ROW(sse_cvt, "cvtsi2sd %%rax, %%xmm0\ncvttsd2si %%xmm0, %%rax")
ROW(pcmpistri, "pcmpistri $0, (%%rdi), %%xmm0")
ROW(pcmpestrm, "mov $9, %%eax\nmov $9, %%edx\npcmpestrm $0, (%%rdi), %%xmm1")
ROW(maskmovdqu, "maskmovdqu %%xmm1, %%xmm0")
ROW(movntdq, "movntdq %%xmm0, (%%rdi)")
ROW(aesenc, "aesenc %%xmm1, %%xmm0")
ROW(pclmul, "pclmulqdq $0, %%xmm1, %%xmm0")
ROW(sha_rounds, "sha256rnds2 %%xmm1, %%xmm2")
ROW(ldmxcsr, "stmxcsr (%%rdi)\nldmxcsr (%%rdi)")
ROW(vex_add, "vaddps %%ymm1, %%ymm0, %%ymm0")
ROW(vex_load, "vaddps (%%rdi), %%ymm0, %%ymm0")
ROW(vex_then_sse, "vaddps %%ymm1, %%ymm0, %%ymm0\naddps %%xmm1, %%xmm2")
ROW(vex_upper_sse, "vaddps %%ymm1, %%ymm0, %%ymm0\nvzeroupper\naddps %%xmm1, %%xmm2")
ROW(vmaskmov, "vpcmpeqd %%ymm1, %%ymm1, %%ymm1\nvmaskmovps (%%rdi), %%ymm1, %%ymm0")
ROW(vmaskmov_store, "vpcmpeqd %%ymm1, %%ymm1, %%ymm1\nvmaskmovps %%ymm0, %%ymm1, (%%rdi)")
ROW(gather,
    "vpcmpeqd %%ymm1, %%ymm1, %%ymm1\nvpxor %%ymm2, %%ymm2, %%ymm2\nvgatherdps %%ymm1, (%%rdi,%%ymm2,4), %%ymm0")
ROW(fma_insn, "vfmadd231ps %%ymm1, %%ymm2, %%ymm0")
ROW(f16c, "vcvtps2ph $0, %%ymm0, (%%rdi)\nvcvtph2ps (%%rdi), %%ymm0")
ROW(zmm_add, "vpaddd %%zmm1, %%zmm0, %%zmm0")
ROW(zmm_masked_load, "kxnorw %%k1, %%k1, %%k1\nvmovdqu32 (%%rdi), %%zmm0%{%%k1%}%{z%}")
ROW(zmm_masked_store, "kxnorw %%k1, %%k1, %%k1\nvmovdqu32 %%zmm0, (%%rdi)%{%%k1%}")
ROW(zmm_part_store, "mov $0x0f, %%eax\nkmovw %%eax, %%k1\nvmovdqu32 %%zmm0, (%%rdi)%{%%k1%}")
ROW(zmm_compress, "kxnorw %%k1, %%k1, %%k1\nvpcompressd %%zmm0, (%%rdi)%{%%k1%}")
ROW(zmm_gather, "kxnorw %%k1, %%k1, %%k1\nvpxord %%zmm2, %%zmm2, %%zmm2\nvpgatherdd (%%rdi,%%zmm2,4), %%zmm0%{%%k1%}")
ROW(zmm_broadcast, "vaddps (%%rdi)%{1to16%}, %%zmm0, %%zmm0")
ROW(fld_fstp, "fldl (%%rdi)\nfstpl 8(%%rdi)")
ROW(fadd_register, "fld1\nfadd %%st(0), %%st\nfstp %%st(0)")
ROW(fadd_memory, "fldz\nfaddl (%%rdi)\nfstp %%st(0)")
ROW(fild_fistp, "fildq (%%rdi)\nfistpq 8(%%rdi)")
ROW(fldt_fstpt, "fld1\nfstpt (%%rdi)")
ROW(fbstp, "fld1\nfbstp (%%rdi)")
ROW(fsin, "fldpi\nfsin\nfstp %%st(0)")
ROW(fnstcw_fldcw, "fnstcw (%%rdi)\nfldcw (%%rdi)")
ROW(fnstsw, "fnstsw %%ax")
ROW(fcomi, "fld1\nfcomip %%st(0), %%st")
ROW(fnstenv, "fnstenv (%%rdi)\nfldenv (%%rdi)")
ROW(fxsave, "fxsave64 (%%rdi)\nfxrstor64 (%%rdi)")
ROW(xsave, "mov $7, %%eax\nxor %%edx, %%edx\nxsave64 (%%rdi)\nxrstor64 (%%rdi)")
ROW(mmx, "movq (%%rdi), %%mm0\npaddd %%mm0, %%mm1")
ROW(mmx_emms, "movq (%%rdi), %%mm0\nemms")
ROW(mmx_sse, "movq2dq %%mm0, %%xmm0\nmovdq2q %%xmm0, %%mm0")

static void denormals(long n) {
  volatile float tiny = 1e-39f, half = 0.5f;
  while (n-- > 0) {
    float a = tiny * half;
    asm volatile("" ::"x"(a));
  }
}
static void denormals_flushed(long n) {
  unsigned before, flush;
  asm volatile("stmxcsr %0" : "=m"(before));
  flush = before | 0x8040;
  asm volatile("ldmxcsr %0" ::"m"(flush));
  denormals(n);
  asm volatile("ldmxcsr %0" ::"m"(before));
}
static void denormals_x87(long n) {
  volatile long double tiny = 3.4e-4940L;
  while (n-- > 0) {
    long double a = tiny * 0.5L;
    asm volatile("" ::"t"(a));
  }
}
static void x87_loop(long n) {
  long double a = 1;
  for (; n > 0; n--) a = a * 1.0000001L + (long double)n;
  asm volatile("" ::"t"(a));
}
static void x87_memory_loop(long n) {
  volatile double* v = (double*)buffer;
  for (; n > 0; n--) v[n & 15] = (double)((long double)v[n & 15] * 0.5L + (long double)v[(n + 1) & 15]);
}

typedef struct {
  const char* name;
  Loop loop;
  const char* needs;
} Row;

static const Row rows[] = {
    {"add", alu, 0},
    {"add-high-byte", high_byte, 0},
    {"lea-r10-r15", r10_r15, 0},
    {"xchg-memory", xchg_mem, 0},
    {"lock-inc", lock_inc, 0},
    {"lock-cmpxchg", lock_cmpxchg, 0},
    {"lock-cmpxchg16b", cmpxchg16b, 0},
    {"bt-register-memory", bt_register, 0},
    {"lock-bts-register-memory", bts_register, 0},
    {"div32", div32, 0},
    {"push-pop", push_pop, 0},
    {"push-pop-memory", push_mem, 0},
    {"push-pop-16", push16, 0},
    {"pushf-popf", pushf_popf, 0},
    {"enter-leave", enter_leave, 0},
    {"enter-1-leave", enter_1, 0},
    {"lahf-sahf", lahf_sahf, 0},
    {"xlat", xlat, 0},
    {"std-cld", cld_std, 0},
    {"loop", loop_insn, 0},
    {"loope", loope_insn, 0},
    {"jrcxz", jrcxz, 0},
    {"rdtsc", rdtsc, 0},
    {"rdtscp", rdtscp, "rdtscp"},
    {"cpuid", cpuid, 0},
    {"xgetbv", xgetbv, 0},
    {"pause", pause_insn, 0},
    {"mfence", mfence, 0},
    {"lfence", lfence, 0},
    {"clflush", clflush, 0},
    {"prefetch", prefetch, 0},
    {"movnti", movnti, 0},
    {"rdrand", rdrand, "rdrnd"},
    {"mov-from-ds", mov_from_ds, 0},
    {"mov-to-ds", mov_to_ds, 0},
    {"load-fs", fs_load, 0},
    {"rdfsbase", rdfsbase, "fsgsbase"},
    {"wrfsbase", wrfsbase, "fsgsbase"},
    {"lsl", lsl_insn, 0},
    {"xadd-memory", xadd, 0},
    {"shld-memory", shld, 0},
    {"rcl-3", rcl, 0},
    {"popcnt-memory", popcnt, "popcnt"},
    {"pext", pext_insn, "bmi2"},
    {"crc32", crc32, "sse4.2"},
    {"movbe", movbe, "movbe"},
    {"adcx", adcx, "adx"},
    {"sse-add", sse_add, 0},
    {"sse-add-memory", sse_load, 0},
    {"sse-to-gpr", sse_to_gpr, 0},
    {"ucomiss", sse_cmp, 0},
    {"cvtsi2sd", sse_cvt, 0},
    {"pcmpistri", pcmpistri, "sse4.2"},
    {"pcmpestrm", pcmpestrm, "sse4.2"},
    {"maskmovdqu", maskmovdqu, 0},
    {"movntdq", movntdq, 0},
    {"aesenc", aesenc, "aes"},
    {"pclmulqdq", pclmul, "pclmul"},
    {"sha256rnds2", sha_rounds, "sha"},
    {"ldmxcsr", ldmxcsr, 0},
    {"vaddps", vex_add, "avx"},
    {"vaddps-memory", vex_load, "avx"},
    {"avx-then-sse", vex_then_sse, "avx"},
    {"avx-vzeroupper-sse", vex_upper_sse, "avx"},
    {"vmaskmov-load", vmaskmov, "avx2"},
    {"vmaskmov-store", vmaskmov_store, "avx2"},
    {"vgatherdps", gather, "avx2"},
    {"fma", fma_insn, "fma"},
    {"vcvtps2ph", f16c, "f16c"},
    {"zmm-add", zmm_add, "avx512f"},
    {"zmm-masked-load", zmm_masked_load, "avx512f"},
    {"zmm-masked-store", zmm_masked_store, "avx512f"},
    {"zmm-part-store", zmm_part_store, "avx512f"},
    {"zmm-compress", zmm_compress, "avx512f"},
    {"zmm-gather", zmm_gather, "avx512f"},
    {"zmm-broadcast", zmm_broadcast, "avx512f"},
    {"fld-fstp", fld_fstp, 0},
    {"fadd", fadd_register, 0},
    {"fadd-memory", fadd_memory, 0},
    {"fild-fistp", fild_fistp, 0},
    {"fstp-80", fldt_fstpt, 0},
    {"fbstp", fbstp, 0},
    {"fsin", fsin, 0},
    {"fldcw", fnstcw_fldcw, 0},
    {"fnstsw", fnstsw, 0},
    {"fcomip", fcomi, 0},
    {"fnstenv", fnstenv, 0},
    {"fxsave", fxsave, 0},
    {"mmx", mmx, 0},
    {"mmx-emms", mmx_emms, 0},
    {"mmx-sse", mmx_sse, 0},
};

static unsigned leaf(unsigned number, int which) {
  unsigned r[4] = {0};
  __get_cpuid_count(number, 0, &r[0], &r[1], &r[2], &r[3]);
  return r[which];
}

static int has(const char* feature) {
  static const struct {
    const char* name;
    unsigned leaf;
    int reg, bit;
  } bits[] = {{"rdrnd", 1, 2, 30},  {"fsgsbase", 7, 1, 0}, {"popcnt", 1, 2, 23}, {"bmi2", 7, 1, 8},
              {"sse4.2", 1, 2, 20}, {"movbe", 1, 2, 22},   {"adx", 7, 1, 19},    {"aes", 1, 2, 25},
              {"pclmul", 1, 2, 1},  {"sha", 7, 1, 29},     {"f16c", 1, 2, 29},   {"rdtscp", 0x80000001, 3, 27}};
  if (strcmp(feature, "avx") == 0) return __builtin_cpu_supports("avx");
  if (strcmp(feature, "avx2") == 0) return __builtin_cpu_supports("avx2");
  if (strcmp(feature, "fma") == 0) return __builtin_cpu_supports("fma");
  if (strcmp(feature, "avx512f") == 0) return __builtin_cpu_supports("avx512f");
  if (strcmp(feature, "f16c") == 0 && !__builtin_cpu_supports("avx")) return 0;
  for (unsigned i = 0; i < sizeof bits / sizeof *bits; i++)
    if (strcmp(bits[i].name, feature) == 0) return leaf(bits[i].leaf, bits[i].reg) >> bits[i].bit & 1;
  return 0;
}

void instructions(void) {
  memset(buffer, 0, 2 * page);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    const Row* r = &rows[i];
    if (r->needs && (!has(r->needs) || (strcmp(r->needs, "fsgsbase") == 0 && !(leaf(7, 1) & 1)))) {
      leave_out("insn", r->name, r->needs);
      continue;
    }
    if (r->loop == fsin || r->loop == fnstcw_fldcw) asm volatile("fninit");
    if (r->loop == ldmxcsr) *(unsigned*)buffer = 0x1f80;
    measure("insn", r->name, r->loop, 4);
    asm volatile("emms");
    memset(buffer, 0, 2 * page);
  }
  if (leaf(1, 2) >> 27 & 1) measure("insn", "xsave", xsave, 4);
  if ((uintptr_t)buffer >> 32 == 0) measure("insn", "address-32", address32, 4);
  measure("float", "denormals", denormals, 1);
  measure("float", "denormals-flushed", denormals_flushed, 1);
  measure("float", "x87-denormals", denormals_x87, 1);
  measure("float", "x87", x87_loop, 1);
  measure("float", "x87-memory", x87_memory_loop, 1);
}
