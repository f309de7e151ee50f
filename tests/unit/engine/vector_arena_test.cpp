#include "engine/emit/code_arena.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <memory>

namespace trapline::engine {
namespace {

TEST(CodeArena, CodeRunsWhereItWasPlaced) {
  CodeArena arena{100};
  EXPECT_EQ(arena.capacity(), kPageSize);
  const std::array<u8, 6> code{0xB8, 42, 0, 0, 0, 0xC3};  // mov eax, 42; ret
  const u8* first = arena.add(code);
  const u8* second = arena.add(code);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(second, first + 16);
  EXPECT_EQ(reinterpret_cast<int (*)()>(second)(), 42);
  EXPECT_TRUE(CodeArena::holds(reinterpret_cast<u64>(second)));
}

TEST(CodeArena, FullIsNull) {
  CodeArena arena{kPageSize};
  const std::array<u8, 4000> large{};
  EXPECT_NE(arena.add(large), nullptr);
  EXPECT_EQ(arena.add(large), nullptr);
  arena.reset();
  EXPECT_NE(arena.add(large), nullptr);
}

TEST(CodeArena, NothingIsWritableAndExecutable) {
  auto arena = std::make_unique<CodeArena>(kPageSize);
  const std::array<u8, 1> code{0xC3};
  const u64 pc = reinterpret_cast<u64>(arena->add(code));
  std::FILE* maps = std::fopen("/proc/self/maps", "r");
  ASSERT_NE(maps, nullptr);
  char line[512];
  unsigned seen = 0;
  while (std::fgets(line, sizeof line, maps)) {
    if (!std::strstr(line, "trapline-code")) continue;
    seen++;
    EXPECT_EQ(std::strstr(line, "rwx"), nullptr) << line;
  }
  std::fclose(maps);
  EXPECT_GE(seen, 2u);
  arena.reset();
  EXPECT_FALSE(CodeArena::holds(pc));
}

}  // namespace
}  // namespace trapline::engine
