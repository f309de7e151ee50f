// What files are recognised as, and hostile ones: truncated at every size, contradictory, oversized, recursive.
#include "scan/open.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scan/scan.h"
#include "unit/scan/elf_builder.h"
#include "unit/scan/packers.h"

namespace trapline::scan {
namespace {

using ::testing::HasSubstr;
using namespace trapline::scan::testing;

ElfBuilder small() {
  ElfBuilder elf;
  elf.sections = {{".text", 1, 6, 0x401000, {0x9d, 0xfa, 0xc3}}, {".rodata", 1, 2, 0x402000, {1, 2, 3, 4}}};
  elf.symbols = {{"f", 0x401000, 3}};
  elf.entry = 0x401000;
  return elf;
}

using Packer = Blob (*)(const Blob&);
struct Kind {
  const char* name;
  Packer pack;
};
constexpr Kind kKinds[] = {{"gzip", pack_gzip},      {"xz", pack_xz},       {"zstd", pack_zstd}, {"lz4", pack_lz4},
                           {"lz4", pack_lz4_legacy}, {"bzip2", pack_bzip2}, {"lzo", pack_lzo}};

Blob bzimage(const Blob& payload) {
  Blob out(0x400);
  const auto set = [&](std::size_t at, auto v) { std::memcpy(&out[at], &v, sizeof v); };
  out[0x1f1] = 1;
  set(0x1fe, u16{0xaa55}), set(0x202, u32{0x53726448}), set(0x206, u16{0x20f}), set(0x20e, u16{0x60});
  std::memcpy(&out[0x260], "6.1.0-test (builder)", 21);
  set(0x248, u32{0}), set(0x24c, static_cast<u32>(payload.size()));
  put(out, payload.data(), payload.size());
  return out;
}

// Everything that reads it must come back; what is found is of no interest.
void survive(const Blob& bytes, const Limits& limits = {}) {
  auto images = open_images("x", bytes, std::nullopt, limits);
  if (!images) {
    EXPECT_FALSE(images.error().empty());
    return;
  }
  for (Image& i : *images) scan_image(i, limits, {});
}

std::string error_of(const Blob& bytes, const Limits& limits = {}) {
  const auto images = open_images("x", bytes, std::nullopt, limits);
  return images ? "no error" : images.error();
}

TEST(Open, EveryCompressionOfModulesAndKernels) {
  const Blob elf = small().build();
  for (const Kind& k : kKinds) {
    for (const Blob& file : {k.pack(elf), bzimage(k.pack(elf))}) {
      const auto images = open_images("x", file, std::nullopt, Limits{});
      ASSERT_TRUE(images) << k.name << ": " << images.error();
      EXPECT_THAT(images->front().format, HasSubstr(k.name));
      EXPECT_EQ(images->front().symbols.size(), 1u);
    }
  }
  EXPECT_THAT(open_images("x", bzimage(pack_xz(elf)), std::nullopt, Limits{})->front().format, HasSubstr("6.1.0-test"));
}

TEST(Open, TruncatedAtEverySize) {
  const Blob elf = small().build();
  for (std::size_t n = 0; n < elf.size(); n++) survive({elf.begin(), elf.begin() + static_cast<long>(n)});
  for (const Kind& k : kKinds) {
    const Blob packed = k.pack(elf);
    for (std::size_t n = 1; n < packed.size(); n++) {
      const Blob part{packed.begin(), packed.begin() + static_cast<long>(n)};
      survive(part);
      survive(bzimage(part));
    }
  }
  const Blob image = bzimage(pack_gzip(elf));
  for (std::size_t n = 0x200; n < image.size(); n++)
    EXPECT_NE(error_of({image.begin(), image.begin() + static_cast<long>(n)}), "no error") << n;
}

TEST(Open, OneByteWrongAnywhere) {
  const Blob elf = small().build();
  for (std::size_t n = 0; n < elf.size(); n++)
    for (u8 v : {u8{0}, u8{0x7f}, u8{0xff}}) {
      Blob bad = elf;
      bad[n] = v;
      survive(bad);
    }
}

TEST(Open, BombsAreRefused) {
  const Blob zeros(8 * MiB);
  Limits limits;
  limits.unpacked = 1 * MiB;
  for (const Kind& k : kKinds)
    EXPECT_THAT(error_of(k.pack(zeros), limits), HasSubstr("unpacks to more than 1 MiB")) << k.name;
  Blob nested = small().build();
  for (int i = 0; i < 6; i++) nested = pack_gzip(nested);
  EXPECT_THAT(error_of(nested), HasSubstr("compressed more than 4 times"));
}

TEST(Open, HugeCountsAndOverlaps) {
  Blob many = small().build();
  const u64 zero_at = *load<u64>(many, 40);
  const u16 none = 0;
  std::memcpy(&many[60], &none, 2);  // the count is in section 0
  const u64 huge = ~u64{0};
  std::memcpy(&many[zero_at + 32], &huge, 8);
  EXPECT_THAT(error_of(many), HasSubstr("sections: more than"));

  ElfBuilder twins = small();
  twins.sections.push_back({".text.twin", 1, 6, 0x401001, {0xfb, 0xc3}});
  const auto images = open_images("x", twins.build(), std::nullopt, Limits{});
  ASSERT_TRUE(images);
  EXPECT_THAT(images->front().warnings, ::testing::Contains(HasSubstr("shares addresses")));
  EXPECT_EQ(std::count_if(images->front().sections.begin(), images->front().sections.end(),
                          [](const Section& s) { return s.code; }),
            1);

  ElfBuilder wraps = small();
  wraps.sections.push_back({".wraps", 1, 6, ~u64{0}, {0xfb, 0xc3}});
  const auto wrapped = open_images("x", wraps.build(), std::nullopt, Limits{});
  ASSERT_TRUE(wrapped);
  EXPECT_THAT(wrapped->front().warnings, ::testing::Contains(HasSubstr("wraps around")));
}

TEST(Open, DataThatSharesAddressesHidesNoCode) {
  ElfBuilder elf = small();
  elf.sections.push_back({".data", 1, 3, 0x401001, {1, 2, 3, 4}});
  auto images = open_images("x", elf.build(), std::nullopt, Limits{});
  ASSERT_TRUE(images);
  Image& image = images->front();
  const Scan scan = scan_image(image, Limits{}, {});
  ASSERT_EQ(scan.findings.size(), 2u);
  for (const Finding& f : scan.findings) EXPECT_EQ(image.code_at(f.address)->name, ".text");
}

TEST(Open, RefusalsSayWhy) {
  EXPECT_THAT(error_of({'h', 'i'}), HasSubstr("--bits"));
  ElfBuilder arm = small();
  arm.machine = 183;
  EXPECT_THAT(error_of(arm.build()), HasSubstr("machine 183 is not x86"));
  ElfBuilder data;
  data.sections = {{".data", 1, 3, 0x1000, {1, 2, 3}}};
  EXPECT_THAT(error_of(data.build()), HasSubstr("no section or segment with code"));
  EXPECT_THAT(error_of({'!', '<', 'a', 'r', 'c', 'h', '>', '\n', 'x'}), HasSubstr("archive: malformed"));
}

TEST(Open, ArchivesMemberByMember) {
  const Blob elf = small().build();
  Blob ar;
  put(ar, "!<arch>\n", 8);
  const auto member = [&](const char* name, const Blob& bytes) {
    char head[61];
    std::snprintf(head, sizeof head, "%-16s%-12d%-6d%-6d%-8d%-10zu`\n", name, 0, 0, 0, 644, bytes.size());
    put(ar, head, 60);
    put(ar, bytes.data(), bytes.size());
    if (bytes.size() & 1) ar.push_back('\n');
  };
  member("//", {'a', '_', 'l', 'o', 'n', 'g', '_', 'n', 'a', 'm', 'e', '.', 'o', '/', '\n'});
  member("/0", elf);
  member("b.o/", elf);
  member("c.txt/", {1, 2, 3});
  const auto images = open_images("lib.a", ar, std::nullopt, Limits{});
  ASSERT_TRUE(images) << images.error();
  ASSERT_EQ(images->size(), 2u);
  EXPECT_EQ((*images)[0].name, "lib.a(a_long_name.o)");
  EXPECT_EQ((*images)[1].name, "lib.a(b.o)");
  EXPECT_THAT((*images)[0].warnings, ::testing::Contains(HasSubstr("c.txt")));
  for (std::size_t n = 0; n < ar.size(); n += 7) survive({ar.begin(), ar.begin() + static_cast<long>(n)});
}

}  // namespace
}  // namespace trapline::scan
