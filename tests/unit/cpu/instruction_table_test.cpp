// The instruction table and the semantics name the same instructions.
#include <gtest/gtest.h>

#include <set>

#include "cpu/fpu.h"
#include "cpu/semantics.h"
#include "isa/table.h"

namespace trapline::cpu {
namespace {

bool has_semantic(isa::Lowering l) { return l == isa::Lowering::called || l == isa::Lowering::ends; }

TEST(InstructionTable, RowsThatSayCalledHaveASemantic) {
  const std::set<isa::RowId> elsewhere{isa::RowId::undefined};  // engines raise #UD themselves
  for (const isa::Row& row : isa::table()) {
    if (elsewhere.contains(row.id) || (!has_semantic(row.ring0.translate) && !has_semantic(row.ring3.translate)))
      continue;
    isa::Insn insn;
    ASSERT_EQ(isa::decode(row.example.bytes.data(), row.example.length, row.example.size, isa::host_vendor(), insn),
              isa::DecodeStatus::ok)
        << isa::slug(row.id);
    EXPECT_TRUE(find_semantic(insn) != nullptr || find_fpu_semantic(insn) != nullptr) << isa::slug(row.id);
  }
}

TEST(InstructionTable, EverySemanticHasARow) {
  std::set<ZydisMnemonic> without;
  for (int prefix : {0, 0x66, 0xf2, 0xf3})
    for (int map = 0; map < 2; map++)
      for (int op = 0; op < 256; op++)
        for (int modrm = 0; modrm < 256; modrm++)
          for (isa::CodeSize size : {isa::CodeSize::bits16, isa::CodeSize::bits32, isa::CodeSize::bits64}) {
            u8 bytes[15] = {};
            unsigned n = 0;
            if (prefix) bytes[n++] = static_cast<u8>(prefix);
            if (map) bytes[n++] = 0x0f;
            bytes[n++] = static_cast<u8>(op), bytes[n++] = static_cast<u8>(modrm);
            isa::Insn insn;
            if (isa::decode(bytes, sizeof bytes, size, isa::host_vendor(), insn) != isa::DecodeStatus::ok) continue;
            if (find_semantic(insn) != nullptr && isa::classify(insn) == nullptr) without.insert(insn.mnemonic);
          }
  for (ZydisMnemonic m : without) ADD_FAILURE() << ZydisMnemonicGetString(m) << " has a semantic and no row";
}

}  // namespace
}  // namespace trapline::cpu
