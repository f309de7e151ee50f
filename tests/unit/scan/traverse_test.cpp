// What is code, how sure that is, and which instructions are found.
#include "scan/scan.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scan/open.h"
#include "unit/scan/elf_builder.h"

namespace trapline::scan {
namespace {

using testing::ElfBuilder;
using Code = std::vector<u8>;

struct Done {
  Image image;
  Scan scan;
};

Done scan_elf(ElfBuilder& elf, bool every_offset = false) {
  const Limits limits;
  auto images = open_images("test", elf.build(), std::nullopt, limits);
  EXPECT_TRUE(images) << (images ? "" : images.error());
  Image image = std::move(images->front());
  Scan scan = scan_image(image, limits, {.every_offset = every_offset});
  return {std::move(image), std::move(scan)};
}

Done scan_raw(const Code& code, isa::CodeSize size, u64 base) {
  const Limits limits;
  auto images = open_images("test", code, RawOptions{base, size}, limits);
  Image image = std::move(images->front());
  Scan scan = scan_image(image, limits, {.every_offset = true});
  return {std::move(image), std::move(scan)};
}

std::vector<std::string> found(const Scan& scan) {
  std::vector<std::string> out;
  for (const Finding& f : scan.findings)
    out.push_back(fmt::format("{:x} {} {}", f.address, isa::slug(f.row), name_of(f.confidence)));
  return out;
}

TEST(Traverse, FollowsFlowAndLeavesDataAlone) {
  ElfBuilder elf;
  // jmp over eight bytes of data that look like POPF and CLI; popf; call the function; hlt; ... function: sti; ret
  elf.sections = {{".text", 1, 6, 0x401000, {0xeb, 8,    0x9d, 0xfa, 0x9d, 0xfa, 0x06, 0x06, 0x06, 0x06,
                                             0x9d, 0xe8, 2,    0,    0,    0,    0xf4, 0xc3, 0xfb, 0xc3}}};
  elf.entry = 0x401000;
  const Done d = scan_elf(elf);
  EXPECT_THAT(found(d.scan),
              ::testing::IsSupersetOf({std::string{"40100a popf certain"}, std::string{"401010 hlt certain"},
                                       std::string{"401012 sti certain"}}));
  for (const Finding& f : d.scan.findings)
    if (f.address < 0x40100a) {
      EXPECT_EQ(f.confidence, Confidence::speculative) << fmt::format("{:x}", f.address);
    }
}

TEST(Traverse, AGapIsSpeculativeAndInsideAFunctionLikely) {
  ElfBuilder elf;
  // f (with a size): ret; cli; ret    then nothing's code: sti; ret
  elf.sections = {{".text", 1, 6, 0x401000, {0xc3, 0xfa, 0xc3, 0x31, 0xc0, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xfb, 0xc3}}};
  elf.symbols = {{"f", 0x401000, 3}, {"g", 0x401003, 3}};
  const Done d = scan_elf(elf);
  EXPECT_THAT(found(d.scan), ::testing::ElementsAre("401001 cli likely", "40100a sti speculative"));
  EXPECT_EQ(d.scan.totals.padding, 4u);
  EXPECT_EQ(d.scan.totals.code(), 8u);
}

TEST(Traverse, AJumpIntoAnInstructionIsFollowed) {
  ElfBuilder elf;
  // je +1 over a LOCK prefix; lock cmpxchg [rdi], ecx; ret
  elf.sections = {{".text", 1, 6, 0x401000, {0x74, 1, 0xf0, 0x0f, 0xb1, 0x0f, 0xc3}}};
  elf.entry = 0x401000;
  const Done d = scan_elf(elf);
  const auto marks = d.scan.map.areas()[0].marks;
  EXPECT_TRUE(marks[2] & CodeMap::start);
  EXPECT_TRUE(marks[3] & CodeMap::start);
  EXPECT_TRUE(marks[3] & CodeMap::overlaps);
  EXPECT_EQ(d.scan.totals.certain, 7u);
}

TEST(Traverse, JumpTablesGiveTargets) {
  // cmp edi, 1; ja +..; lea rdx, [rip+table]; movsxd rax, [rdx+rdi*4]; add rax, rdx; jmp rax; cases: cli; ret / sti;
  // ret
  Code code = {0x83, 0xff, 0x01, 0x77, 0x13, 0x48, 0x8d, 0x15, 0,    0,    0,    0,    0x48,
               0x63, 0x04, 0xba, 0x48, 0x01, 0xd0, 0xff, 0xe0, 0xfa, 0xc3, 0xfb, 0xc3, 0xc3};
  const u64 table = 0x402000, next = 0x40100c;
  const u32 distance = static_cast<u32>(table - next);
  std::memcpy(&code[8], &distance, 4);
  std::vector<u8> entries;
  testing::put<u32>(entries, static_cast<u32>(0x401015 - table));
  testing::put<u32>(entries, static_cast<u32>(0x401017 - table));
  testing::put<u32>(entries, 0x12345678);
  ElfBuilder elf;
  elf.sections = {{".text", 1, 6, 0x401000, code}, {".rodata", 1, 2, table, entries}};
  elf.entry = 0x401000;
  const Done d = scan_elf(elf);
  EXPECT_EQ(d.scan.jump_tables, 1u);
  EXPECT_THAT(found(d.scan), ::testing::ElementsAre("401015 cli certain", "401017 sti certain"));
}

TEST(Traverse, ModulesAreFollowedByTheirRelocations) {
  // f: call g (empty field, relocated); ret    .init.text: g: cli; ret
  ElfBuilder elf;
  elf.type = 1;
  std::vector<u8> rela;
  testing::put<u64>(rela, 1), testing::put<u64>(rela, u64{2} << 32 | 4), testing::put<i64>(rela, -4);
  elf.sections = {{".text", 1, 6, 0, {0xe8, 0, 0, 0, 0, 0xc3}},
                  {".init.text", 1, 6, 0, {0x90, 0xfa, 0xc3}},
                  {".rela.text", 4, 0, 0, rela, 4, 1, 24}};
  elf.symbols = {{"f", 0, 6, 2, 1}, {"g", 1, 2, 0, 2}};
  const Done d = scan_elf(elf);
  ASSERT_EQ(d.scan.findings.size(), 1u);
  const Finding& f = d.scan.findings.front();
  EXPECT_EQ(f.confidence, Confidence::certain);
  EXPECT_EQ(d.image.code_at(f.address)->name, ".init.text");
}

TEST(Traverse, RawCodeOfEverySize) {
  EXPECT_THAT(found(scan_raw({0xfa, 0xea, 0, 0, 0, 0x10}, isa::CodeSize::bits16, 0x7c00).scan),
              ::testing::ElementsAre("7c00 cli certain", "7c01 jmp_far certain"));
  EXPECT_THAT(found(scan_raw({0x0f, 0x01, 0x0d, 0, 0, 0, 0, 0xc3}, isa::CodeSize::bits32, 0x1000).scan),
              ::testing::ElementsAre("1000 sidt certain"));
}

TEST(Traverse, EveryOffsetShowsWhatHides) {
  // mov eax, 0x050f9d90: POPF and SYSCALL in the immediate
  const Done d = scan_raw({0xb8, 0x90, 0x9d, 0x0f, 0x05, 0xc3}, isa::CodeSize::bits64, 0x1000);
  EXPECT_TRUE(d.scan.findings.empty());
  std::vector<std::string> hidden;
  for (const Finding& f : d.scan.hidden) hidden.push_back(fmt::format("{:x} {}", f.address, isa::slug(f.row)));
  EXPECT_THAT(hidden, ::testing::ElementsAre("1002 popf", "1003 syscall"));
}

TEST(Traverse, AnUnwindEntryIsARootAndAFunction) {
  std::vector<u8> frame;
  const u64 at = 0x403000;
  testing::put<u32>(frame, 16), testing::put<u32>(frame, 0);
  testing::put(frame, "\1zR\0\1\x78\x10\1\x1b\0\0\0", 12);
  testing::put<u32>(frame, 16), testing::put<u32>(frame, 24);
  testing::put<u32>(frame, static_cast<u32>(0x401004 - (at + frame.size()))), testing::put<u32>(frame, 2);
  testing::put<u32>(frame, 0), testing::put<u32>(frame, 0);
  ElfBuilder elf;
  elf.sections = {{".text", 1, 6, 0x401000, {0xc3, 0x06, 0x06, 0x06, 0xfa, 0xc3}}, {".eh_frame", 1, 2, at, frame}};
  elf.entry = 0x401000;
  const Done d = scan_elf(elf);
  EXPECT_THAT(found(d.scan), ::testing::ElementsAre("401004 cli certain"));
  ASSERT_EQ(d.image.symbols.size(), 1u);
  EXPECT_EQ(d.image.symbols[0].size, 2u);
}

}  // namespace
}  // namespace trapline::scan
