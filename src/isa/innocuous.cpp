// What needs no row: computation on registers and on memory that segment and page tables already confine. Decided by
// Zydis' category and ISA set, both lists closed: what a newer Zydis adds is in no class until somebody has looked at
// it.
//
// One kind of sensitivity is left out on purpose, because it is not of one instruction: every x87, MMX, SSE and AVX
// instruction depends on CR0.TS, CR0.EM, CR4.OSFXSR and XCR0 (it raises #NM or #UD), every memory operand on the page
// tables, every fetch on the code segment. The engines keep these as part of the mode that they translate for.
#include <algorithm>

#include "isa/table.h"

namespace trapline::isa {

namespace {

// Pure computation: nothing in it is of the machine, whatever its operands.
constexpr ZydisInstructionCategory kComputing[] = {
    ZYDIS_CATEGORY_ADOX_ADCX,     ZYDIS_CATEGORY_AES,           ZYDIS_CATEGORY_AMD3DNOW,
    ZYDIS_CATEGORY_AVX,           ZYDIS_CATEGORY_AVX2,          ZYDIS_CATEGORY_AVX2GATHER,
    ZYDIS_CATEGORY_AVX512,        ZYDIS_CATEGORY_AVX512_4FMAPS, ZYDIS_CATEGORY_AVX512_4VNNIW,
    ZYDIS_CATEGORY_AVX512_BITALG, ZYDIS_CATEGORY_AVX512_VBMI,   ZYDIS_CATEGORY_AVX512_VP2INTERSECT,
    ZYDIS_CATEGORY_BINARY,        ZYDIS_CATEGORY_BITBYTE,       ZYDIS_CATEGORY_BLEND,
    ZYDIS_CATEGORY_BMI1,          ZYDIS_CATEGORY_BMI2,          ZYDIS_CATEGORY_BROADCAST,
    ZYDIS_CATEGORY_CMOV,          ZYDIS_CATEGORY_COMPRESS,      ZYDIS_CATEGORY_CONFLICT,
    ZYDIS_CATEGORY_CONVERT,       ZYDIS_CATEGORY_DATAXFER,      ZYDIS_CATEGORY_DECIMAL,
    ZYDIS_CATEGORY_EXPAND,        ZYDIS_CATEGORY_FCMOV,         ZYDIS_CATEGORY_FMA4,
    ZYDIS_CATEGORY_FP16,          ZYDIS_CATEGORY_GATHER,        ZYDIS_CATEGORY_GFNI,
    ZYDIS_CATEGORY_IFMA,          ZYDIS_CATEGORY_KMASK,         ZYDIS_CATEGORY_KNC,
    ZYDIS_CATEGORY_KNCMASK,       ZYDIS_CATEGORY_KNCSCALAR,     ZYDIS_CATEGORY_LOGICAL,
    ZYDIS_CATEGORY_LOGICAL_FP,    ZYDIS_CATEGORY_LZCNT,         ZYDIS_CATEGORY_MMX,
    ZYDIS_CATEGORY_MOVDIR,        ZYDIS_CATEGORY_MPX,           ZYDIS_CATEGORY_NOP,
    ZYDIS_CATEGORY_PCLMULQDQ,     ZYDIS_CATEGORY_PREFETCH,      ZYDIS_CATEGORY_PREFETCHWT1,
    ZYDIS_CATEGORY_ROTATE,        ZYDIS_CATEGORY_SCATTER,       ZYDIS_CATEGORY_SEMAPHORE,
    ZYDIS_CATEGORY_SETCC,         ZYDIS_CATEGORY_SHA,           ZYDIS_CATEGORY_SHIFT,
    ZYDIS_CATEGORY_SSE,           ZYDIS_CATEGORY_STRINGOP,      ZYDIS_CATEGORY_STTNI,
    ZYDIS_CATEGORY_TBM,           ZYDIS_CATEGORY_UFMA,          ZYDIS_CATEGORY_VAES,
    ZYDIS_CATEGORY_VBMI2,         ZYDIS_CATEGORY_VEX,           ZYDIS_CATEGORY_VFMA,
    ZYDIS_CATEGORY_VPCLMULQDQ,    ZYDIS_CATEGORY_WIDENOP,       ZYDIS_CATEGORY_X87_ALU,
    ZYDIS_CATEGORY_XOP,
};

// ISA sets that have instructions in the categories above and yet are of the machine.
constexpr ZydisISASet kOfTheMachine[] = {
    ZYDIS_ISA_SET_RTM,   ZYDIS_ISA_SET_LWP,     ZYDIS_ISA_SET_TSX_LDTRK,
    ZYDIS_ISA_SET_SVM,   ZYDIS_ISA_SET_VTX,     ZYDIS_ISA_SET_KEYLOCKER,
    ZYDIS_ISA_SET_UINTR, ZYDIS_ISA_SET_WAITPKG, ZYDIS_ISA_SET_KEYLOCKER_WIDE,
};

// The harmless ones of categories that are mixed.
constexpr ZydisMnemonic kHarmless[] = {
    // Near transfers, inside one code segment.
    ZYDIS_MNEMONIC_CALL,
    ZYDIS_MNEMONIC_JMP,
    ZYDIS_MNEMONIC_RET,
    ZYDIS_MNEMONIC_JB,
    ZYDIS_MNEMONIC_JBE,
    ZYDIS_MNEMONIC_JL,
    ZYDIS_MNEMONIC_JLE,
    ZYDIS_MNEMONIC_JNB,
    ZYDIS_MNEMONIC_JNBE,
    ZYDIS_MNEMONIC_JNL,
    ZYDIS_MNEMONIC_JNLE,
    ZYDIS_MNEMONIC_JNO,
    ZYDIS_MNEMONIC_JNP,
    ZYDIS_MNEMONIC_JNS,
    ZYDIS_MNEMONIC_JNZ,
    ZYDIS_MNEMONIC_JO,
    ZYDIS_MNEMONIC_JP,
    ZYDIS_MNEMONIC_JS,
    ZYDIS_MNEMONIC_JZ,
    ZYDIS_MNEMONIC_JCXZ,
    ZYDIS_MNEMONIC_JECXZ,
    ZYDIS_MNEMONIC_JRCXZ,
    ZYDIS_MNEMONIC_JKZD,
    ZYDIS_MNEMONIC_JKNZD,
    ZYDIS_MNEMONIC_LOOP,
    ZYDIS_MNEMONIC_LOOPE,
    ZYDIS_MNEMONIC_LOOPNE,
    // The arithmetic flags, and DF.
    ZYDIS_MNEMONIC_CLC,
    ZYDIS_MNEMONIC_STC,
    ZYDIS_MNEMONIC_CMC,
    ZYDIS_MNEMONIC_CLD,
    ZYDIS_MNEMONIC_STD,
    ZYDIS_MNEMONIC_LAHF,
    ZYDIS_MNEMONIC_SAHF,
    ZYDIS_MNEMONIC_SALC,
    // The stack, addresses, fences.
    ZYDIS_MNEMONIC_PUSH,
    ZYDIS_MNEMONIC_POP,
    ZYDIS_MNEMONIC_PUSHA,
    ZYDIS_MNEMONIC_PUSHAD,
    ZYDIS_MNEMONIC_POPA,
    ZYDIS_MNEMONIC_POPAD,
    ZYDIS_MNEMONIC_ENTER,
    ZYDIS_MNEMONIC_LEAVE,
    ZYDIS_MNEMONIC_LEA,
    ZYDIS_MNEMONIC_XLAT,
    ZYDIS_MNEMONIC_LFENCE,
    ZYDIS_MNEMONIC_MFENCE,
    ZYDIS_MNEMONIC_SFENCE,
    // CET's landing pads: NOPs, unless the process asked for indirect branch tracking.
    ZYDIS_MNEMONIC_ENDBR32,
    ZYDIS_MNEMONIC_ENDBR64,
};

template <class Range, class T>
bool contains(const Range& range, T value) {
  return std::find(std::begin(range), std::end(range), value) != std::end(range);
}

}  // namespace

bool known_innocuous(const ZydisDecodedInstruction& insn) {
  if (contains(kHarmless, insn.mnemonic)) return true;
  return contains(kComputing, insn.meta.category) && !contains(kOfTheMachine, insn.meta.isa_set);
}

}  // namespace trapline::isa
