#include "boot/elf.h"

#include <gmock/gmock.h>

#include "unit/boot/fixture.h"

namespace trapline::boot::testing {
namespace {

using ::testing::HasSubstr;

class PvhBoot : public BootTest {};

TEST_F(PvhBoot, EntersAtTheNotesAddressWithStartInfoInEbx) {
  for (const bool is64 : {false, true}) {
    request.command_line = "root=/dev/none";
    const Image initrd(100, std::byte{0x55}), extra(10, std::byte{0x66});
    request.initrd = initrd;
    request.modules = {{view(extra), "extra", "extra args"}};
    const auto info = load(elf(is64, 0x100000, {{}}, 0x100004));
    ASSERT_TRUE(info) << info.error();
    EXPECT_EQ(info->format, BootFormat::pvh);
    EXPECT_EQ(cpu.rip, 0x100004u);
    expect_flat_protected_mode();
    EXPECT_EQ(cpu.tr.limit, 0x67u);
    EXPECT_EQ(chars(0x100000, 11), "kernel code");

    const u64 start = cpu.gpr[isa::rbx];
    EXPECT_EQ(at<u32>(start), 0x336ec578u);
    EXPECT_EQ(at<u32>(start + 4), 1u);
    ASSERT_EQ(at<u32>(start + 12), 2u);
    EXPECT_EQ(text(at<u64>(start + 24)), "root=/dev/none");
    EXPECT_EQ(chars(at<u64>(start + 32), 8), "RSD PTR ");
    const u64 modules = at<u64>(start + 16);
    EXPECT_EQ(at<u64>(modules + 8), 100u);
    EXPECT_EQ(at<u8>(at<u64>(modules) + 99), 0x55);
    EXPECT_EQ(at<u64>(modules + 40), 10u);
    EXPECT_EQ(text(at<u64>(modules + 48)), "extra args");
    const u64 memory = at<u64>(start + 40);
    EXPECT_EQ(at<u32>(start + 48), 6u);
    EXPECT_EQ(at<u64>(memory + 24 * 3), MiB);
    EXPECT_EQ(at<u64>(memory + 24 * 3 + 8), 63 * MiB);
    EXPECT_EQ(at<u32>(memory + 24 * 3 + 16), 1u);
  }
}

TEST_F(PvhBoot, BssIsCleared) {
  std::memset(ram.host(Gpa{0x100000}), 0xff, 0x4000);
  ASSERT_TRUE(load(elf(true, 0, {{}}, 0x100000)));
  EXPECT_EQ(at<u8>(0x10000b), 0);
  EXPECT_EQ(at<u8>(0x101fff), 0);
  EXPECT_EQ(at<u8>(0x102000), 0xff);
}

TEST_F(PvhBoot, VmlinuxWithoutANoteIsRefused) {
  EXPECT_EQ(
      error(elf(true, 0x100000, {{}})),
      "vmtest: ELF64 without a PVH note or a multiboot header: build Linux with CONFIG_PVH=y, or give its bzImage");
}

TEST_F(PvhBoot, NoteOutsideOfSegments) {
  EXPECT_THAT(error(elf(true, 0, {{}}, 0x200000)), HasSubstr("lies outside of every ELF segment"));
}

TEST_F(PvhBoot, OverlappingSegments) {
  Segment second;
  second.paddr = 0x101fff;
  EXPECT_THAT(error(elf(true, 0, {{}, second}, 0x100000)),
              HasSubstr("ELF segment 1 at 0x101fff+0x2000 overlaps another one"));
}

TEST_F(PvhBoot, SegmentsBeyondRam) {
  Segment far;
  far.paddr = 0x4000000;
  EXPECT_EQ(error(elf(true, 0, {far}, 0x4000000)),
            "vmtest: ELF segment 0 needs 8.0 KiB at 0x4000000, but the guest has 64.0 MiB of memory: give --memory "
            "128M or more");
  far.memory = 0xf0000000;
  EXPECT_THAT(error(elf(true, 0, {far}, 0x4000000)), HasSubstr("does not fit below 3 GiB"));
  far.paddr = kVideoHoleStart;
  far.memory = 0x1000;
  EXPECT_THAT(error(elf(true, 0, {far}, kVideoHoleStart)), HasSubstr("does not lie in RAM that a kernel may use"));
}

TEST_F(PvhBoot, InitrdTooLarge) {
  const Image initrd(64 * MiB);
  request.initrd = initrd;
  EXPECT_THAT(error(elf(true, 0, {{}}, 0x100000)),
              HasSubstr("the initrd is too large: 64.0 MiB in 64.0 MiB of guest memory: give --memory 256M or more"));
}

TEST_F(PvhBoot, CommandLineTooLong) {
  request.command_line = std::string(70000, 'x');
  EXPECT_THAT(error(elf(true, 0, {{}}, 0x100000)),
              HasSubstr("the command line has 70000 bytes, at most 65535 can be passed"));
}

TEST_F(PvhBoot, TruncationAtEveryLengthIsAnErrorNotACrash) {
  const Image whole = elf(true, 0, {{}}, 0x100000);
  for (u64 size = 0; size < whole.size(); size++)
    EXPECT_FALSE(load(Image(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)))) << size;
}

TEST(Elf, RefusesOtherMachinesAndObjectFiles) {
  Image k = elf(true, 0, {{}});
  set<u16>(k, 18, 183);
  EXPECT_EQ(loader::parse_elf(k).error(), "ELF for another machine (64-bit Arm): an x86 kernel is needed");
  set<u16>(k, 18, 4711);
  EXPECT_THAT(loader::parse_elf(k).error(), HasSubstr("e_machine 4711"));
  set<u16>(k, 18, 62);
  set<u16>(k, 16, 1);
  EXPECT_THAT(loader::parse_elf(k).error(), HasSubstr("not executable"));
  set<u8>(k, 5, 2);
  EXPECT_THAT(loader::parse_elf(k).error(), HasSubstr("big-endian"));
}

TEST(Elf, HostileHeaderFieldsDoNotOverflow) {
  const Image good = elf(true, 0, {{}});
  const auto with = [&](u64 offset, auto value) {
    Image k = good;
    set(k, offset, value);
    return loader::parse_elf(k);
  };
  EXPECT_THAT(with(32, ~u64{0}).error(), HasSubstr("program headers lie beyond"));
  EXPECT_THAT(with(54, u16{1}).error(), HasSubstr("without usable program headers"));
  EXPECT_THAT(with(64 + 8, ~u64{0} - 3).error(), HasSubstr("truncated"));
  EXPECT_THAT(with(64 + 24, ~u64{0}).error(), HasSubstr("wraps around"));
  EXPECT_THAT(with(64 + 40, u64{3}).error(), HasSubstr("more bytes in the file than in memory"));
  EXPECT_TRUE(with(40, ~u64{0})) << "section headers serve debuggers only";
}

TEST(Elf, NoteWithHostileSizesEnds) {
  Image k = elf(true, 0, {{}}, 0x100000);
  for (u64 at = k.size() - 40; at + 4 <= k.size(); at += 4) {
    Image bad = k;
    set<u32>(bad, at, 0xffffffff);
    const auto parsed = loader::parse_elf(bad);
    ASSERT_TRUE(parsed);
    loader::pvh_entry(*parsed);
  }
}

}  // namespace
}  // namespace trapline::boot::testing
