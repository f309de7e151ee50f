// Linux's patch tables and kallsyms.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scan/kallsyms.h"
#include "scan/open.h"
#include "scan/report.h"
#include "scan/scan.h"
#include "unit/scan/elf_builder.h"

namespace trapline::scan {
namespace {

using ::testing::HasSubstr;
using namespace trapline::scan::testing;
using Blob = std::vector<u8>;

constexpr u64 kText = 0xffffffff81000000, kNew = 0xffffffff81001000, kTable = 0xffffffff82000000;

Image open_elf(ElfBuilder& elf) { return std::move(open_images("t", elf.build(), std::nullopt, Limits{})->front()); }

// nop3; ret    replaced by: stac
ElfBuilder with_alternative(u64 entry_size, u16 feature) {
  Blob table;
  for (int i = 0; i < 2; i++) {  // twice: one entry alone fits more layouts than one
    put<i32>(table, static_cast<i32>(kText - (kTable + table.size())));
    put<i32>(table, static_cast<i32>(kNew - (kTable + table.size())));
    put<u16>(table, feature);
    if (entry_size == 14) put<u16>(table, 0);
    put<u8>(table, 3), put<u8>(table, 3);
    if (entry_size == 13) put<u8>(table, 0);
  }
  ElfBuilder elf;
  elf.sections = {{".text", 1, 6, kText, {0x0f, 0x1f, 0, 0xc3}},
                  {".altinstr_replacement", 1, 6, kNew, {0x0f, 0x01, 0xcb}},
                  {".altinstructions", 1, 2, kTable, table}};
  elf.entry = kText;
  return elf;
}

TEST(LinuxPatches, AlternativesOfThreeLayouts) {
  for (u64 size : {u64{12}, u64{13}, u64{14}}) {
    ElfBuilder elf = with_alternative(size, 9 * 32 + 20);
    Image image = open_elf(elf);
    const Scan scan = scan_image(image, Limits{}, {});
    EXPECT_EQ(scan.patches.entries.at(".altinstructions"), 2u) << size;
    ASSERT_EQ(scan.findings.size(), 1u) << size;
    EXPECT_EQ(isa::slug(scan.findings[0].row), "stac");
    EXPECT_EQ(scan.findings[0].confidence, Confidence::certain);
    const PatchSite* site = scan.patches.at(kNew);
    ASSERT_TRUE(site);
    EXPECT_EQ(describe(*site), "alternative: put in place when X86_FEATURE 9*32+20 (SMAP)");
    EXPECT_EQ(describe(*scan.patches.at(kText + 2)), "alternative: replaced when X86_FEATURE 9*32+20 (SMAP)");
    EXPECT_EQ(scan.patches.at(kText + 3), nullptr);
  }
}

TEST(LinuxPatches, AnInvertedFeature) {
  ElfBuilder elf = with_alternative(12, 0x8000 | (8 * 32 + 16));
  Image image = open_elf(elf);
  const Scan scan = scan_image(image, Limits{}, {});
  EXPECT_EQ(describe(*scan.patches.at(kText)), "alternative: replaced when not X86_FEATURE 8*32+16 (XENPV)");
}

TEST(LinuxPatches, TablesThatMakeNoSenseAreLeftOut) {
  for (const char* name : {".altinstructions", ".parainstructions", ".retpoline_sites", "__jump_table", "__ex_table",
                           "__bug_table", ".static_call_sites"}) {
    ElfBuilder elf;
    Blob nonsense(48);
    for (std::size_t i = 0; i < nonsense.size(); i++) nonsense[i] = static_cast<u8>(i * 37 + 11);
    elf.sections = {{".text", 1, 6, kText, {0xc3}}, {name, 1, 2, kTable, nonsense}};
    elf.entry = kText;
    Image image = open_elf(elf);
    const Scan scan = scan_image(image, Limits{}, {});
    EXPECT_TRUE(scan.patches.sites.empty()) << name;
    EXPECT_THAT(image.warnings, ::testing::Contains(HasSubstr(name)));
  }
}

TEST(LinuxPatches, ABugMayBePassedAndAFixupIsReached) {
  // ud2 (a warning's); cli; ret; fixup: sti; ret
  Blob bugs, faults;
  put<i32>(bugs, static_cast<i32>(kText - kTable)), put<i32>(bugs, 0), put<u16>(bugs, 7), put<u16>(bugs, 1);
  const u64 at = kTable + 0x1000;
  put<i32>(faults, static_cast<i32>(kText + 2 - at)), put<i32>(faults, static_cast<i32>(kText + 4 - (at + 4)));
  put<i32>(faults, 1);
  ElfBuilder elf;
  elf.sections = {{".text", 1, 6, kText, {0x0f, 0x0b, 0xfa, 0xc3, 0xfb, 0xc3}},
                  {"__bug_table", 1, 2, kTable, bugs},
                  {"__ex_table", 1, 2, at, faults}};
  elf.entry = kText;
  Image image = open_elf(elf);
  const Scan scan = scan_image(image, Limits{}, {});
  std::vector<std::string> found;
  for (const Finding& f : scan.findings) found.push_back(fmt::format("{} {}", isa::slug(f.row), name_of(f.confidence)));
  EXPECT_THAT(found, ::testing::IsSupersetOf({std::string{"cli certain"}, std::string{"sti likely"}}));
}

// struct bug_entry with a format (6.19 on): a UD1 with arguments is in __WARN_trap, and the entry names a place in
// front of the call to it.
TEST(LinuxPatches, BugsWithFormats) {
  Blob bugs;
  const auto entry = [&](u64 place, u16 flags) {
    put<i32>(bugs, static_cast<i32>(place - (kTable + bugs.size())));
    put<i32>(bugs, 0x100), put<i32>(bugs, 0x200), put<u16>(bugs, 7), put<u16>(bugs, flags);
  };
  entry(kText, 0x901);       // ud2: a warning
  entry(kText + 3, 0x911);   // mov edi, eax; call: with arguments
  entry(kText + 10, 0x901);  // ud1
  ElfBuilder elf;
  elf.sections = {{".text",
                   1,
                   6,
                   kText,
                   {0x0f, 0x0b, 0xfa, 0x89, 0xc7, 0xe8, 0, 0, 0, 0, 0x67, 0x48, 0x0f, 0xb9, 0x3a, 0xfb, 0xc3}},
                  {"__bug_table", 1, 2, kTable, bugs}};
  elf.entry = kText;
  Image image = open_elf(elf);
  const Scan scan = scan_image(image, Limits{}, {});
  EXPECT_EQ(scan.patches.entries.at("__bug_table"), 3u);
  EXPECT_THAT(scan.patches.bugs, ::testing::ElementsAre(kText, kText + 10));
  std::vector<std::string> found;
  for (const Finding& f : scan.findings) found.push_back(fmt::format("{} {}", isa::slug(f.row), name_of(f.confidence)));
  EXPECT_THAT(found, ::testing::IsSupersetOf({std::string{"cli certain"}, std::string{"sti certain"}}));
}

TEST(LinuxPatches, DataThatItsSegmentDoesNotExecuteIsNoCode) {
  ElfBuilder elf;
  elf.sections = {{".text", 1, 6, kText, {0xfa, 0xc3}}, {".data", 1, 7, kTable, Blob(64, 0xfa)}};
  elf.segments = {{5, kText, 0x1000}, {6, kTable, 0x1000}};
  elf.entry = kText;
  Image image = open_elf(elf);
  const Scan scan = scan_image(image, Limits{}, {});
  EXPECT_EQ(scan.findings.size(), 1u);
  EXPECT_THAT(image.warnings, ::testing::Contains(HasSubstr(".data is flagged executable")));
  elf.segments[1].flags = 7;
  Image executed = open_elf(elf);
  EXPECT_GT(scan_image(executed, Limits{}, {}).findings.size(), 1u);
}

// `order`: what 6.2 and later put between markers and tokens. `late`: offsets behind the tokens, as from 6.4.
// `distances`: each from its own place and all in steps of 4 bytes, as from 7.1.
Blob kallsyms(u32 count, std::size_t order, bool late, bool distances = false) {
  Blob names, markers, tokens, index, offsets, out;
  const std::size_t step = distances ? 4 : 8;
  const auto align = [&](Blob& b) { b.resize((b.size() + step - 1) & ~(step - 1)); };
  for (u32 i = 0; i < count; i++) {
    if (i % 256 == 0) put<u32>(markers, static_cast<u32>(names.size()));
    const std::string name = fmt::format("Tf{}", i);
    put<u8>(names, static_cast<u8>(name.size()));
    put(names, name.data(), name.size());
    put<i32>(offsets, -1 - static_cast<i32>(i));
  }
  for (unsigned i = 0; i < 256; i++) {
    put<u16>(index, static_cast<u16>(tokens.size()));
    if (i >= '0' && i <= 'z') put<u8>(tokens, static_cast<u8>(i));
    if (i == 'q') put(tokens, "uack", 4);
    put<u8>(tokens, 0);
  }
  for (Blob* b : {&names, &markers, &tokens, &offsets}) align(*b);
  out.resize(64, 0xee);
  const auto append = [&](const Blob& b) { put(out, b.data(), b.size()); };
  if (!late) append(offsets), put<u64>(out, kText);
  if (distances)
    out.resize(68, 0xee), put<u32>(out, count);  // no multiple of 8
  else
    put<u64>(out, count);
  append(names), append(markers);
  out.resize(out.size() + (order + 7) / 8 * 8, 0x5a);
  append(tokens), append(index);
  if (distances)
    for (u32 i = 0; i < count; i++) put<i32>(out, static_cast<i32>(kText + i - (kTable + out.size())));
  else if (late)
    append(offsets), put<u64>(out, kText);
  out.resize(out.size() + 4096, distances ? 0x33 : 0);
  return out;
}

TEST(Kallsyms, EveryLayout) {
  for (const auto& [order, late, distances] :
       {std::tuple{0, false, false}, {1800, false, false}, {0, true, false}, {0, true, true}}) {
    const Blob table = kallsyms(600, static_cast<std::size_t>(order), late, distances);
    ElfBuilder elf;
    elf.sections = {{".text", 1, 6, kText, Blob(600, 0xc3)}, {".rodata", 1, 2, kTable, table}};
    elf.entry = kText;
    Image image = open_elf(elf);
    add_kallsyms(image, Limits{});
    ASSERT_EQ(image.symbols.size(), 600u) << order << late << distances;
    EXPECT_EQ(image.symbols[599].name, "f599");
    EXPECT_EQ(image.symbols[599].address, kText + 599);
    EXPECT_EQ(image.symbols[5].size, 1u);
  }
}

TEST(Kallsyms, DamagedTablesAddNothing) {
  const Blob whole = kallsyms(600, 0, false);
  for (std::size_t cut = 64; cut < whole.size(); cut += 397) {
    Blob table = whole;
    for (std::size_t i = cut; i < cut + 9 && i < table.size(); i++) table[i] ^= 0xa5;
    ElfBuilder elf;
    elf.sections = {{".text", 1, 6, kText, Blob(600, 0xc3)}, {".rodata", 1, 2, kTable, table}};
    elf.entry = kText;
    Image image = open_elf(elf);
    add_kallsyms(image, Limits{});
    EXPECT_LE(image.symbols.size(), 600u);
  }
}

}  // namespace
}  // namespace trapline::scan
