// A fixture with an emitter, whose code it shows as a decoder reads it.
#pragma once

#include <Zydis/Zydis.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "engine/emit/emitter.h"

namespace trapline::engine::emit {

struct EmittedTest : testing::Test {
  static constexpr u64 kPlace = 0x10000000;
  std::unique_ptr<Emitter> owner = std::make_unique<Emitter>();
  Emitter& e = *owner;
  void SetUp() override { e.begin(kPlace); }

  // One line per instruction, targets as addresses relative to the start.
  std::string listing() const {
    std::string text;
    for (u32 at = 0; at < e.size();) {
      ZydisDisassembledInstruction insn;
      if (!ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, at, e.data() + at, e.size() - at, &insn)))
        return text + "?";
      text += std::string{insn.text} + "\n";
      at += insn.info.length;
    }
    return text;
  }
};

}  // namespace trapline::engine::emit
