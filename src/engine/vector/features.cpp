// CPUID bits: Intel SDM Vol. 2A CPUID; AMD APM Vol. 3 appendix D.
#include "engine/vector/features.h"

#include <cpuid.h>

namespace trapline::engine::vector {

namespace {

enum Feature : u8 {
  fpu,
  cmov,
  mmx,
  sse,
  sse2,
  sse3,
  ssse3,
  sse4_1,
  sse4_2,
  sse4a,
  aes,
  pclmul,
  sha,
  gfni,
  avx,
  avx2,
  fma,
  f16c,
  vaes,
  vpclmul,
  avx_vnni,
  avx512f,
  avx512dq,
  avx512ifma,
  avx512cd,
  avx512bw,
  avx512vl,
  vbmi,
  vbmi2,
  vnni,
  bitalg,
  vpopcntdq,
  bf16,
  fp16,
  vp2intersect,
  count_of_features,
};

struct Row {
  const char* name;  // as in /proc/cpuinfo
  u32 leaf, subleaf;
  u8 reg;  // EAX, EBX, ECX, EDX
  u8 bit;
};

constexpr Row kRows[count_of_features] = {
    {"fpu", 1, 0, 3, 0},
    {"cmov", 1, 0, 3, 15},
    {"mmx", 1, 0, 3, 23},
    {"sse", 1, 0, 3, 25},
    {"sse2", 1, 0, 3, 26},
    {"pni", 1, 0, 2, 0},
    {"ssse3", 1, 0, 2, 9},
    {"sse4_1", 1, 0, 2, 19},
    {"sse4_2", 1, 0, 2, 20},
    {"sse4a", 0x80000001, 0, 2, 6},
    {"aes", 1, 0, 2, 25},
    {"pclmulqdq", 1, 0, 2, 1},
    {"sha_ni", 7, 0, 1, 29},
    {"gfni", 7, 0, 2, 8},
    {"avx", 1, 0, 2, 28},
    {"avx2", 7, 0, 1, 5},
    {"fma", 1, 0, 2, 12},
    {"f16c", 1, 0, 2, 29},
    {"vaes", 7, 0, 2, 9},
    {"vpclmulqdq", 7, 0, 2, 10},
    {"avx_vnni", 7, 1, 0, 4},
    {"avx512f", 7, 0, 1, 16},
    {"avx512dq", 7, 0, 1, 17},
    {"avx512ifma", 7, 0, 1, 21},
    {"avx512cd", 7, 0, 1, 28},
    {"avx512bw", 7, 0, 1, 30},
    {"avx512vl", 7, 0, 1, 31},
    {"avx512vbmi", 7, 0, 2, 1},
    {"avx512_vbmi2", 7, 0, 2, 6},
    {"avx512_vnni", 7, 0, 2, 11},
    {"avx512_bitalg", 7, 0, 2, 12},
    {"avx512_vpopcntdq", 7, 0, 2, 14},
    {"avx512_bf16", 7, 1, 0, 5},
    {"avx512_fp16", 7, 0, 3, 23},
    {"avx512_vp2intersect", 7, 0, 3, 8},
};

constexpr u64 kNever = ~u64{0};

template <class... F>
constexpr u64 bits(F... f) {
  return (... | (u64{1} << f));
}

u64 host_xcr0() {
  u32 a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return 0;  // OSXSAVE
  u32 low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return u64{high} << 32 | low;
}

u64 probe_host() {
  u64 result = 0;
  for (u32 i = 0; i < count_of_features; i++) {
    const Row& row = kRows[i];
    u32 r[4] = {};
    if (__get_cpuid_count(row.leaf, row.subleaf, &r[0], &r[1], &r[2], &r[3]) && r[row.reg] >> row.bit & 1)
      result |= u64{1} << i;
  }
  const u64 xcr0 = host_xcr0();
  constexpr u64 kFirstAvx512 = u64{1} << avx512f;
  if ((xcr0 & 6) != 6) result &= bits(avx) - 1;
  if ((xcr0 & 0xe6) != 0xe6) result &= kFirstAvx512 - 1;
  return result;
}

}  // namespace

u64 host_features() {
  static const u64 features = probe_host();
  return features;
}

u64 guest_features(const cpu::Cpuid* policy) {
  u64 result = host_features();
  if (!policy) return result;
  for (u32 i = 0; i < count_of_features; i++)
    if (!policy->has(kRows[i].name)) result &= ~(u64{1} << i);
  return result;
}

bool host_has_avx() { return host_features() >> avx & 1; }
bool host_has_avx512() { return host_features() >> avx512f & 1; }
bool host_has_avx512vl() { return host_features() >> avx512vl & 1; }
bool host_has_avx512bw() { return host_features() >> avx512bw & 1; }

#define EVEX_SETS(SET, ...)                      \
  case ZYDIS_ISA_SET_##SET##_128:                \
  case ZYDIS_ISA_SET_##SET##_256:                \
    return bits(__VA_ARGS__, avx512f, avx512vl); \
  case ZYDIS_ISA_SET_##SET##_512:                \
    return bits(__VA_ARGS__, avx512f);

u64 required_features(ZydisISASet set) {
  switch (set) {
    case ZYDIS_ISA_SET_X87:
      return bits(fpu);
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_PPRO:
      return bits(fpu, cmov);  // FCOMI and kin
    case ZYDIS_ISA_SET_SSE3X87:
      return bits(fpu, sse3);
    case ZYDIS_ISA_SET_PENTIUMMMX:
      return bits(mmx);
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
      return bits(sse);
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
      return bits(sse2);
    case ZYDIS_ISA_SET_SSE3:
      return bits(sse3);
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
      return bits(ssse3);
    case ZYDIS_ISA_SET_SSE4:
      return bits(sse4_1);
    case ZYDIS_ISA_SET_SSE42:
      return bits(sse4_2);
    case ZYDIS_ISA_SET_SSE4A:
      return bits(sse4a);
    case ZYDIS_ISA_SET_AES:
      return bits(aes);
    case ZYDIS_ISA_SET_PCLMULQDQ:
      return bits(pclmul);
    case ZYDIS_ISA_SET_SHA:
      return bits(sha);
    case ZYDIS_ISA_SET_GFNI:
      return bits(gfni);
    case ZYDIS_ISA_SET_AVX:
      return bits(avx);
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
      return bits(avx2, avx);
    case ZYDIS_ISA_SET_AVXAES:
      return bits(aes, avx);
    case ZYDIS_ISA_SET_AVX_GFNI:
      return bits(gfni, avx);
    case ZYDIS_ISA_SET_AVX_VNNI:
      return bits(avx_vnni, avx);
    case ZYDIS_ISA_SET_VAES:
      return bits(vaes, avx);
    case ZYDIS_ISA_SET_VPCLMULQDQ:
      return bits(vpclmul, avx);
    case ZYDIS_ISA_SET_F16C:
      return bits(f16c, avx);
    case ZYDIS_ISA_SET_FMA:
      return bits(fma, avx);
    case ZYDIS_ISA_SET_AVX512F_128N:
    case ZYDIS_ISA_SET_AVX512F_KOP:
    case ZYDIS_ISA_SET_AVX512F_SCALAR:
      return bits(avx512f);
    case ZYDIS_ISA_SET_AVX512BW_128N:
    case ZYDIS_ISA_SET_AVX512BW_KOP:
      return bits(avx512f, avx512bw);
    case ZYDIS_ISA_SET_AVX512DQ_128N:
    case ZYDIS_ISA_SET_AVX512DQ_KOP:
    case ZYDIS_ISA_SET_AVX512DQ_SCALAR:
      return bits(avx512f, avx512dq);
    case ZYDIS_ISA_SET_AVX512_FP16_128N:
    case ZYDIS_ISA_SET_AVX512_FP16_SCALAR:
      return bits(avx512f, fp16);
      EVEX_SETS(AVX512F, avx512f)
      EVEX_SETS(AVX512BW, avx512bw)
      EVEX_SETS(AVX512CD, avx512cd)
      EVEX_SETS(AVX512DQ, avx512dq)
      EVEX_SETS(AVX512_BF16, bf16)
      EVEX_SETS(AVX512_BITALG, bitalg)
      EVEX_SETS(AVX512_FP16, fp16)
      EVEX_SETS(AVX512_VP2INTERSECT, vp2intersect)
      EVEX_SETS(AVX512_GFNI, gfni)
      EVEX_SETS(AVX512_IFMA, avx512ifma)
      EVEX_SETS(AVX512_VAES, vaes)
      EVEX_SETS(AVX512_VBMI, vbmi)
      EVEX_SETS(AVX512_VBMI2, vbmi2)
      EVEX_SETS(AVX512_VNNI, vnni)
      EVEX_SETS(AVX512_VPCLMULQDQ, vpclmul)
      EVEX_SETS(AVX512_VPOPCNTDQ, vpopcntdq)
    default:
      return kNever;  // 3DNow!, XOP, FMA4, KNC, VP2INTERSECT: never offered
  }
}
#undef EVEX_SETS

}  // namespace trapline::engine::vector
