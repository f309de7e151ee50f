// What the instruction table says of an engine is what the engine does.
#include <gtest/gtest.h>

#include "cpu/fpu.h"
#include "cpu/semantics.h"
#include "engine/emit/code_arena.h"
#include "engine/hostcode/front.h"
#include "engine/interpret/build.h"
#include "isa/table.h"
#include "isa/traits.h"

namespace trapline::engine {
namespace {

using hostcode::Treatment;
using isa::Lowering;

// A policy that reaches nothing: the front half emits nothing.
struct NoMemory final : hostcode::MemoryLowering {
  void prepare(const hostcode::Context&, std::vector<hostcode::TranslatedInsn>&) const override {}
  void begin_block() override {}
  void reach(hostcode::Lowering&, const hostcode::Place&, unsigned, bool, const hostcode::SharedLookup&,
             hostcode::ExitStub&) override {}
  hostcode::Mem reached(const hostcode::Place&) const override { return {}; }
  void tail(hostcode::Lowering&, u32) override {}
  hostcode::Mem jump_slot(hostcode::Emitter&, hostcode::Mem slot, u8) const override { return slot; }
  void turn(hostcode::Emitter&, const hostcode::RunningMode&) const override {}
  u64 thunk(const hostcode::ExitStub&, bool) const override { return 0; }
  u64 put_back(const hostcode::ExitStub&) const override { return 0; }
  u64 constant(const hostcode::Fixup&, Gva) const override { return 0; }
};

struct Case {
  const isa::Row* row;
  isa::Ring ring;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << isa::slug(c.row->id) << (c.ring == isa::Ring::ring0 ? " in ring 0" : " in ring 3");
}
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const isa::Row& row : isa::table())
    for (const isa::Ring ring : {isa::Ring::ring0, isa::Ring::ring3}) all.push_back({&row, ring});
  return all;
}

Lowering lowering_of(const hostcode::TranslatedInsn& insn) {
  switch (insn.treatment) {
    case Treatment::special:
    case Treatment::branch:
      return Lowering::inlined;
    case Treatment::semantic:
      if (isa::traits(insn.insn.mnemonic).semantics == isa::Semantics::system && insn.semantic == cpu::sem::undefined)
        return Lowering::refused;
      return insn.ends ? Lowering::ends : Lowering::called;
    case Treatment::step:
      return Lowering::refused;
    default:
      return Lowering::copied;
  }
}

class TranslateColumn : public testing::TestWithParam<Case> {};

TEST_P(TranslateColumn, SaysWhatTheTranslatorDoes) {
  const isa::Row& row = *GetParam().row;
  const isa::Example& example = row.example;
  static const cpu::Cpuid policy = *cpu::Cpuid::make({});
  static CodeArena arena{1 << 20};
  static VectorUnit unit{arena};
  cpu::Vcpu cpu;
  cpu.cpuid = &policy;
  const NoMemory memory;
  const DebugOptions debug;
  hostcode::Front front{unit, memory, debug};
  hostcode::Context context;
  context.bits64 = example.size == isa::CodeSize::bits64;
  context.ring0 = GetParam().ring == isa::Ring::ring0;
  context.counted = false;
  context.turned.tag = 0;
  std::vector<hostcode::TranslatedInsn> insns;
  bool full = false;
  (void)front.collect(cpu, example.bytes.data(), example.length, example.size, context, {true, true, true, true}, insns,
                      &full, [](u64) { return false; });
  ASSERT_FALSE(insns.empty());
  EXPECT_EQ(isa::name(lowering_of(insns[0])), isa::name(isa::in_ring(row, GetParam().ring).translate));
}

INSTANTIATE_TEST_SUITE_P(Rows, TranslateColumn, testing::ValuesIn(cases()), [](const auto& of) {
  return std::string{isa::slug(of.param.row->id)} + (of.param.ring == isa::Ring::ring0 ? "_ring0" : "_ring3");
});

// Who changes the mode, the mapping or RIP, or lets interrupts in, is the last in a block; who does not need not be.
TEST(Traits, WhatChangesMuchEndsTheBlock) {
  using namespace isa::change;
  for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
    const isa::Traits& t = isa::traits(static_cast<ZydisMnemonic>(m));
    if (t.semantics != isa::Semantics::system || !t.may_change(mode | mapping | flow | interrupts)) continue;
    EXPECT_EQ(t.block, isa::BlockAfter::ends) << ZydisMnemonicGetString(static_cast<ZydisMnemonic>(m));
  }
}

// `inlined` there and in the table are the same.
TEST(Traits, InlinedIsWhatTheTableCallsInlined) {
  for (const isa::Row& row : isa::table()) {
    bool any = false;
    for (const ZydisMnemonic m : row.mnemonics) any |= isa::traits(m).has(isa::trait::inlined);
    if (row.form != isa::Form::any) continue;
    EXPECT_EQ(any, row.ring0.translate == Lowering::inlined) << isa::slug(row.id);
  }
}

}  // namespace
}  // namespace trapline::engine
