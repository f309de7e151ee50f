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

}  // namespace trapline::isa
