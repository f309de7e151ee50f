#include "isa/traits.h"

#include <array>
#include <string_view>

namespace trapline::isa {

namespace {

using namespace change;
using namespace trait;
using enum BlockAfter;

constexpr const char* feature(std::string_view name) { return name == "always" ? nullptr : name.data(); }

constexpr Traits kTraits[] = {
    {},  // of what has no row
#define NONE Semantics::none
#define SYSTEM(function) Semantics::system
#define FPU(function) Semantics::fpu
#define BY_OPERANDS Semantics::by_operands
#define INSN(mnemonic, semantic, block, changes, traits, needs) {semantic, block, changes, traits, feature(#needs)},
#include "isa/traits.inc"
#undef INSN
};

constexpr auto kRowOf = [] {
  std::array<u16, ZYDIS_MNEMONIC_MAX_VALUE + 1> row{};
  u16 next = 1;
#define INSN(mnemonic, ...) row[ZYDIS_MNEMONIC_##mnemonic] = next++;
#include "isa/traits.inc"
#undef INSN
  return row;
}();

// A second row of the same mnemonic would hide the first.
constexpr bool each_once() {
  std::array<bool, ZYDIS_MNEMONIC_MAX_VALUE + 1> seen{};
  bool once = true;
#define INSN(mnemonic, ...)                 \
  once &= !seen[ZYDIS_MNEMONIC_##mnemonic]; \
  seen[ZYDIS_MNEMONIC_##mnemonic] = true;
#include "isa/traits.inc"
#undef INSN
  return once;
}
static_assert(each_once());

}  // namespace

const Traits& traits(ZydisMnemonic mnemonic) { return kTraits[kRowOf[mnemonic]]; }

bool block_goes_on(const Insn& insn) {
  const BlockAfter after = traits(insn.mnemonic).block;
  if (after != BlockAfter::by_operands) return after == BlockAfter::goes_on;
  // MOV. In 64-bit mode only FS and GS matter to addressing, and handlers read their bases each time. SS brings a
  // shadow.
  using Kind = Operand::Kind;
  return insn.op[1].kind == Kind::seg ||
         (insn.op[0].kind == Kind::seg && insn.code_size == CodeSize::bits64 && insn.op[0].reg != u8(Seg::ss));
}

}  // namespace trapline::isa
