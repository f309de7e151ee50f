#include "isa/table.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "unit/isa/encodings.h"

namespace trapline::isa {
namespace {

std::string text(std::string_view s) { return std::string{s}; }

const Row* of(std::vector<u8> bytes, CodeSize size = CodeSize::bits64) {
  Insn insn;
  EXPECT_EQ(decode(bytes.data(), bytes.size(), size, host_vendor(), insn), DecodeStatus::ok);
  return classify(insn);
}

void expect_row(std::vector<u8> bytes, RowId id, CodeSize size = CodeSize::bits64) {
  const Row* r = of(bytes, size);
  ASSERT_NE(r, nullptr) << slug(id);
  EXPECT_EQ(text(slug(r->id)), text(slug(id)));
}

TEST(Table, EveryMnemonicIsInExactlyOneClass) {
  std::set<ZydisMnemonic> seen, undecided, twice;
  for_each_encoding([&](const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
    seen.insert(insn.mnemonic);
    const Row* r = classify(insn, operands);
    if (r == nullptr && !known_innocuous(insn)) undecided.insert(insn.mnemonic);
    // A row for some forms only leaves the others innocuous; a row for all leaves none.
    if (r != nullptr && r->form == Form::any && known_innocuous(insn)) twice.insert(insn.mnemonic);
  });
  for (ZydisMnemonic m : twice) ADD_FAILURE() << ZydisMnemonicGetString(m) << " is in two classes";
  for (ZydisMnemonic m : undecided) ADD_FAILURE() << ZydisMnemonicGetString(m) << " is in no class";
  for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
    const auto mnemonic = static_cast<ZydisMnemonic>(m);
    // Knights Corner's only, and with a prefix (MVEX) that no x86 host executes.
    if (mnemonic == ZYDIS_MNEMONIC_VMOVNRNGOAPD || mnemonic == ZYDIS_MNEMONIC_VMOVNRNGOAPS) continue;
    EXPECT_TRUE(seen.contains(mnemonic)) << ZydisMnemonicGetString(mnemonic) << " was not reached by any encoding";
  }
}

TEST(Table, ExamplesDecodeAndAreClassifiedAsTheirRow) {
  for (const Row& r : table())
    for (const Example& e : {r.example, r.example32}) {
      if (e.length == 0) continue;
      const std::optional<Decoded> d = decode_all(e.code(), e.size);
      ASSERT_TRUE(d) << slug(r.id);
      EXPECT_EQ(d->insn.length, e.length) << slug(r.id);
      const Row* found = classify(d->insn, d->operands.data());
      ASSERT_NE(found, nullptr) << slug(r.id) << ": " << ZydisMnemonicGetString(d->insn.mnemonic);
      EXPECT_EQ(text(slug(found->id)), text(slug(r.id)));
    }
}

TEST(Table, RowsAreWhole) {
  std::set<std::string_view> names;
  for (const Row& r : table()) {
    SCOPED_TRACE(slug(r.id));
    EXPECT_TRUE(names.insert(r.name).second) << "name used twice";
    EXPECT_FALSE(r.what.empty());
    EXPECT_FALSE(r.manual.empty());
    EXPECT_GT(r.example.length, 0);
    for (Ring ring : {Ring::ring0, Ring::ring3}) {
      EXPECT_TRUE(why(r, ring).ends_with('.')) << why(r, ring);
      EXPECT_EQ(why(r, ring).find(". "), std::string_view::npos) << "more than one sentence";
    }
    // Sensitive, or innocuous in both rings: the classes follow from the sensitivity.
    EXPECT_EQ(r.sensitivity == Sensitivity::none, r.ring0.cls == Class::innocuous);
    unsigned alternatives = 0;
    while (alternatives < r.effect.size() && r.effect[alternatives].feature != Feature::count) alternatives++;
    if (alternatives > 0) {
      EXPECT_EQ(r.effect[alternatives - 1].feature, Feature::always) << "an unconditional last";
    }
  }
}

TEST(Table, PrivilegedRowsTrapOnAnyHostAndCriticalOnesNotOnEvery) {
  for (const Row& r : table()) {
    if (r.ring0.cls == Class::privileged) {
      EXPECT_TRUE(is_trap(effect_on(r, {}))) << slug(r.id);
      EXPECT_EQ(class_on(r, Ring::ring0, {}), Class::privileged) << slug(r.id);
    }
  }
}

TEST(Table, HasTheSeventeenOfRobinAndIrvine) {
  std::set<ZydisMnemonic> marked;
  for (const Row& r : table())
    if (r.robin_irvine) {
      EXPECT_EQ(r.ring0.cls, Class::critical) << slug(r.id);
      marked.insert(r.mnemonics[0]);
    }
  const std::set<ZydisMnemonic> seventeen{
      ZYDIS_MNEMONIC_SGDT, ZYDIS_MNEMONIC_SIDT, ZYDIS_MNEMONIC_SLDT, ZYDIS_MNEMONIC_SMSW, ZYDIS_MNEMONIC_PUSHF,
      ZYDIS_MNEMONIC_POPF, ZYDIS_MNEMONIC_LAR,  ZYDIS_MNEMONIC_LSL,  ZYDIS_MNEMONIC_VERR, ZYDIS_MNEMONIC_VERW,
      ZYDIS_MNEMONIC_POP,  ZYDIS_MNEMONIC_PUSH, ZYDIS_MNEMONIC_CALL, ZYDIS_MNEMONIC_JMP,  ZYDIS_MNEMONIC_INT,
      ZYDIS_MNEMONIC_RET,  ZYDIS_MNEMONIC_STR,  ZYDIS_MNEMONIC_MOV};
  EXPECT_EQ(marked, seventeen);
}

TEST(Classify, TellsFormsOfOneMnemonicApart) {
  EXPECT_EQ(of({0x48, 0x89, 0xc8}), nullptr);  // mov rax, rcx
  expect_row({0x0f, 0x22, 0xc0}, RowId::mov_to_cr);
  expect_row({0x44, 0x0f, 0x20, 0xc0}, RowId::mov_from_cr);  // mov rax, cr8
  expect_row({0x0f, 0x23, 0xc0}, RowId::mov_to_dr);
  expect_row({0x0f, 0x21, 0xc0}, RowId::mov_from_dr);
  expect_row({0x8e, 0x16}, RowId::mov_to_ss);
  expect_row({0x8e, 0x26}, RowId::mov_to_seg);
  expect_row({0x8c, 0x0e}, RowId::mov_from_cs);
  expect_row({0x8c, 0xe0}, RowId::mov_from_seg);
  EXPECT_EQ(of({0x50}), nullptr);
  expect_row({0x0f, 0xa8}, RowId::push_seg);
  expect_row({0x0e}, RowId::push_cs, CodeSize::bits32);
  expect_row({0x1f}, RowId::pop_seg, CodeSize::bits16);
}

TEST(Classify, TellsFarTransfersFromNearOnes) {
  EXPECT_EQ(of({0xff, 0xd0}), nullptr);
  EXPECT_EQ(of({0xff, 0x10}), nullptr);
  EXPECT_EQ(of({0xff, 0x20}), nullptr);
  EXPECT_EQ(of({0xc3}), nullptr);
  EXPECT_EQ(of({0xc2, 8, 0}), nullptr);
  EXPECT_EQ(of({0xf3, 0xc3}), nullptr);
  expect_row({0xff, 0x18}, RowId::call_far);
  expect_row({0x48, 0xff, 0x18}, RowId::call_far);
  expect_row({0x66, 0xff, 0x28}, RowId::jmp_far);
  expect_row({0x48, 0xcb}, RowId::ret_far);
  expect_row({0xca, 8, 0}, RowId::ret_far);
  expect_row({0x9a, 0, 0, 0, 0, 8, 0}, RowId::call_far, CodeSize::bits32);
  expect_row({0xea, 0, 0, 8, 0}, RowId::jmp_far, CodeSize::bits16);
}

TEST(Classify, TellsInterruptVectorsApart) {
  expect_row({0xcc}, RowId::int3);
  expect_row({0xcd, 0x03}, RowId::int_3);
  expect_row({0xcd, 0x04}, RowId::int_4);
  expect_row({0xcd, 0x80}, RowId::int_80);
  expect_row({0xcd, 0x83}, RowId::int_n);
}

// Both classify()s look at different decoders' output.
TEST(Classify, BothKindsOfDecodedInstructionGiveTheSameRow) {
  for_each_encoding([](const ZydisDecodedInstruction& zi, const ZydisDecodedOperand* operands) {
    // isa::decode() has these off (the guest is never offered them): the bytes are NOPs there.
    if (zi.meta.isa_set == ZYDIS_ISA_SET_CET || zi.meta.isa_set == ZYDIS_ISA_SET_MPX) return;
    if (classify(zi, operands) == nullptr) return;
    Insn insn;
    const auto size = static_cast<CodeSize>(zi.machine_mode == ZYDIS_MACHINE_MODE_LONG_64     ? 8
                                            : zi.machine_mode == ZYDIS_MACHINE_MODE_LEGACY_32 ? 4
                                                                                              : 2);
    const std::vector<u8> bytes = current_encoding();
    if (decode(bytes.data(), bytes.size(), size, isa::host_vendor(), insn) != DecodeStatus::ok ||
        insn.mnemonic != zi.mnemonic)
      return;
    EXPECT_EQ(classify(insn), classify(zi, operands)) << ZydisMnemonicGetString(zi.mnemonic);
  });
}

TEST(Features, DecideTheEffectAndTheClass) {
  HostFeatures host;
  const Row& sgdt = row(RowId::sgdt);
  EXPECT_EQ(effect_on(sgdt, host), Effect::reveals);
  EXPECT_EQ(class_on(sgdt, Ring::ring0, host), Class::critical);
  host.set(Feature::umip);
  EXPECT_EQ(effect_on(sgdt, host), Effect::traps_gp);
  EXPECT_EQ(class_on(sgdt, Ring::ring0, host), Class::privileged);
  host.set(Feature::umip_answers);
  EXPECT_EQ(effect_on(sgdt, host), Effect::answers);
  EXPECT_EQ(class_on(sgdt, Ring::ring0, host), Class::critical);
  EXPECT_EQ(effect_on(row(RowId::str), host), Effect::traps_gp);
  host.set(Feature::umip, false);
  EXPECT_FALSE(host.has(Feature::umip));
  EXPECT_EQ(class_on(row(RowId::popf), Ring::ring3, host), Class::innocuous);
  host.set(Feature::hypercall_fixed);  // #PF where the page is read-only, a hypercall where it is not
  EXPECT_EQ(class_on(row(RowId::vmmcall), Ring::ring0, host), Class::critical);
}

}  // namespace
}  // namespace trapline::isa
