#include "boot/boot.h"

#include <gmock/gmock.h>

#include "boot/acpi_area.h"
#include "cpu/mmu.h"
#include "unit/boot/fixture.h"

namespace trapline::boot::testing {
namespace {

using ::testing::HasSubstr;

class LinuxBoot : public BootTest {
 protected:
  u64 zero_page() const { return cpu.gpr[isa::rsi]; }
  template <class T>
  T param(u64 offset) const {
    return at<T>(zero_page() + offset);
  }
};

TEST_F(LinuxBoot, EntersAt64BitEntryInLongModeAtThePreferredAddress) {
  request.command_line = "console=ttyS0 quiet";
  const auto info = load(bzimage());
  ASSERT_TRUE(info) << info.error();
  EXPECT_EQ(info->format, BootFormat::linux64);
  EXPECT_EQ(info->entry, Gpa{0x1000200});
  EXPECT_EQ(cpu.rip, 0x1000200u);
  EXPECT_EQ(cpu.mode, cpu::Mode::long64);
  EXPECT_EQ(cpu.rflags(), 2u);
  EXPECT_EQ(cpu.seg[1].selector, 0x10);
  EXPECT_EQ(cpu.seg[3].selector, 0x18);
  EXPECT_EQ(chars(0x1000000, 4), "\xc0\xc0\xc0\xc0");
  EXPECT_EQ(text(param<u32>(0x228)), "console=ttyS0 quiet");
  EXPECT_EQ(param<u32>(0x202), 0x53726448u);
  EXPECT_EQ(param<u8>(0x210), 0xff);
  EXPECT_EQ(param<u8>(0x1ef), 0) << "sentinel";
  EXPECT_EQ(param<u16>(0x1fa), 0xffff);
  EXPECT_EQ(param<u32>(0x214), 0x1000000u);
}

TEST_F(LinuxBoot, PageTablesMapTheFirst4GiBOntoThemselves) {
  ASSERT_TRUE(load(bzimage()));
  for (const u64 address : {u64{0}, u64{0x1000200}, u64{0x7fffffff}, 4 * GiB - 1}) {
    const u64 pml4e = at<u64>(cpu.cr3);
    const u64 pdpte = at<u64>((pml4e & ~u64{0xfff}) + 8 * (address >> 30));
    const u64 pde = at<u64>((pdpte & ~u64{0xfff}) + 8 * (address >> 21 & 511));
    EXPECT_EQ(pml4e & pdpte & pde & 3, 3u);
    EXPECT_EQ(pde & 0x80, 0x80u);
    EXPECT_EQ((pde & ~u64{0x1fffff}) | (address & 0x1fffff), address);
  }
  EXPECT_EQ(at<u64>(cpu.cr3 + 8), 0u);
}

TEST_F(LinuxBoot, GdtHoldsTheSegmentsThatTheRegistersShow) {
  ASSERT_TRUE(load(bzimage()));
  EXPECT_EQ(cpu.gdtr.limit, 31);
  EXPECT_EQ(at<u64>(cpu.gdtr.base + 0x10), 0x00af9b000000ffffu);
  EXPECT_EQ(at<u64>(cpu.gdtr.base + 0x18), 0x00cf93000000ffffu);
}

TEST_F(LinuxBoot, E820ListsRamReservedAreasAndHighMemory) {
  remake(4 * GiB);
  ASSERT_TRUE(load(bzimage()));
  struct Entry {
    u64 start, size;
    u32 type;
    bool operator==(const Entry&) const = default;
  };
  std::vector<Entry> map;
  for (unsigned i = 0; i < param<u8>(0x1e8); i++) {
    const u64 e = 0x2d0 + 20 * i;
    map.push_back({param<u64>(e), param<u64>(e + 8), param<u32>(e + 16)});
  }
  const std::vector<Entry> expected{
      {0, 0x9fc00, 1},         {0x9fc00, 0x400, 2},     {kAcpiTablesStart.raw, 0x20000, 2},
      {MiB, 3 * GiB - MiB, 1}, {0xfec00000, 0x1000, 2}, {0xfee00000, 0x1000, 2},
      {4 * GiB, GiB, 1}};
  EXPECT_EQ(map, expected);
}

TEST_F(LinuxBoot, RsdpAddressIsPassedAndInTheTablesArea) {
  ASSERT_TRUE(load(bzimage()));
  const u64 rsdp = param<u64>(0x70);
  EXPECT_GE(rsdp, kAcpiTablesStart.raw);
  EXPECT_LT(rsdp, kAcpiTablesEnd.raw);
  EXPECT_EQ(chars(rsdp, 8), "RSD PTR ");
  request.acpi = false;
  ASSERT_TRUE(load(bzimage()));
  EXPECT_EQ(param<u64>(0x70), 0u);
}

TEST_F(LinuxBoot, InitrdGoesAsHighAsRamAllows) {
  const Image initrd(5000, std::byte{0x77});
  request.initrd = initrd;
  ASSERT_TRUE(load(bzimage()));
  EXPECT_EQ(param<u32>(0x218), 64 * MiB - 8192);
  EXPECT_EQ(param<u32>(0x21c), 5000u);
  EXPECT_EQ(at<u8>(64 * MiB - 8192 + 4999), 0x77);
}

TEST_F(LinuxBoot, InitrdStaysBelowInitrdAddrMax) {
  const Image initrd(4096, std::byte{0x77});
  request.initrd = initrd;
  Image k = bzimage();
  set<u32>(k, 0x22c, 0x2ffffff);
  ASSERT_TRUE(load(k));
  EXPECT_EQ(param<u32>(0x218), 0x3000000u - 4096);
}

TEST_F(LinuxBoot, InitrdGoesAbove4GiBOnlyIfTheKernelCanReachIt) {
  remake(4 * GiB);
  const Image initrd(4 * MiB, std::byte{0x77});
  request.initrd = initrd;
  Image k = bzimage();
  set<u32>(k, 0x22c, 0x1fffff);
  ASSERT_TRUE(load(k));
  EXPECT_EQ(param<u32>(0x218), 0u + 0x40000000 - 4 * MiB);  // low half of 5 GiB - 4 MiB
  EXPECT_EQ(param<u32>(0x0c0), 1u);
  set<u16>(k, 0x236, 1);
  EXPECT_THAT(error(k), HasSubstr("this kernel takes one only below 2.0 MiB"));
}

TEST_F(LinuxBoot, Enters32BitKernelsInFlatProtectedMode) {
  Image k = bzimage();
  set<u16>(k, 0x236, 0);
  const auto info = load(k);
  ASSERT_TRUE(info) << info.error();
  EXPECT_EQ(info->format, BootFormat::linux32);
  EXPECT_EQ(cpu.rip, 0x1000000u);
  expect_flat_protected_mode();
  EXPECT_EQ(cpu.gpr[isa::rbp] | cpu.gpr[isa::rdi] | cpu.gpr[isa::rbx], 0u);
}

TEST_F(LinuxBoot, ProtocolBefore212HasNo64BitEntry) {
  Image k = bzimage();
  set<u16>(k, 0x206, 0x20b);
  const auto info = load(k);
  ASSERT_TRUE(info) << info.error();
  EXPECT_EQ(info->format, BootFormat::linux32);
}

TEST_F(LinuxBoot, RelocatesWhenThePreferredPlaceIsNoPlaceForAKernel) {
  Image k = bzimage();
  set<u64>(k, 0x258, 0);
  const auto info = load(k);
  ASSERT_TRUE(info) << info.error();
  EXPECT_EQ(info->entry, Gpa{0x200200});
}

// It would move itself to where it prefers to be, and die there.
TEST_F(LinuxBoot, NeverRelocatesBelowThePreferredPlace) {
  remake(16 * MiB);
  EXPECT_EQ(error(bzimage()),
            "vmtest: setup header asks for 8.0 MiB at 16.0 MiB, but the guest has 16.0 MiB: give --memory 64M or more");
}

TEST_F(LinuxBoot, NotRelocatableKernelLoadsAtCode32Start) {
  Image k = bzimage();
  set<u8>(k, 0x234, 0);
  const auto info = load(k);
  ASSERT_TRUE(info) << info.error();
  EXPECT_EQ(info->entry, Gpa{0x100200});
  remake(16 * MiB);
  EXPECT_EQ(error(k),
            "vmtest: setup header asks for 23.0 MiB at 1.0 MiB, but the guest has 16.0 MiB: give --memory 64M or more");
}

TEST_F(LinuxBoot, CommandLineLimitIsTheKernels) {
  request.command_line = std::string(2047, 'x');
  EXPECT_TRUE(load(bzimage()));
  request.command_line += 'x';
  EXPECT_EQ(error(bzimage()),
            "vmtest: the command line has 2048 bytes, but this kernel takes at most 2047: shorten --append");
}

TEST_F(LinuxBoot, TheTscFrequencyIsToldInFrontUnlessTheLineHasItOrIsFull) {
  const auto line = [&](const char* given) {
    remake(64 * MiB);
    request.command_line = given;
    EXPECT_TRUE(load(bzimage()));
    return text(param<u32>(0x228));
  };
  request.tell_tsc_khz = 2799999;
  EXPECT_EQ(line("quiet -- one"), "tsc_early_khz=2799999 quiet -- one");
  EXPECT_EQ(line(""), "tsc_early_khz=2799999");
  EXPECT_EQ(line("tsc_early_khz=5 quiet"), "tsc_early_khz=5 quiet");
  EXPECT_EQ(line(std::string(2047, 'x').c_str()), std::string(2047, 'x'));
}

TEST_F(LinuxBoot, TooLittleMemoryNamesTheRemedy) {
  remake(8 * MiB);
  EXPECT_EQ(error(bzimage()),
            "vmtest: setup header asks for 8.0 MiB at 16.0 MiB, but the guest has 8.0 MiB: give --memory 64M or more");
}

TEST_F(LinuxBoot, InitrdLargerThanRam) {
  const Image initrd(60 * MiB);
  request.initrd = initrd;
  EXPECT_THAT(error(bzimage()), HasSubstr("the initrd is too large: 60.0 MiB beside the kernel's 8.0 MiB in 64.0 MiB "
                                          "of guest memory: give --memory 256M"));
}

TEST_F(LinuxBoot, TruncationAtEveryLengthIsAnErrorNotACrash) {
  const Image whole = bzimage();
  const auto first = [&](u64 size) { return Image(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)); };
  for (u64 size = 0; size < whole.size() - 15; size += 7) EXPECT_FALSE(load(first(size))) << size;
  EXPECT_THAT(error(first(whole.size() - 16)),
              HasSubstr("truncated: the setup header announces 5120 bytes, the file has 5104"));
  EXPECT_TRUE(load(first(whole.size() - 15))) << "syssize counts whole paragraphs";
}

TEST_F(LinuxBoot, DamagedHeadersAreRefused) {
  const auto with = [](u64 offset, auto value) {
    Image k = bzimage();
    set(k, offset, value);
    return k;
  };
  EXPECT_THAT(error(with(0x206, u16{0x205})), HasSubstr("boot protocol 2.05 is too old"));
  EXPECT_THAT(error(with(0x211, u8{0})), HasSubstr("zImage"));
  EXPECT_THAT(error(with(0x1f4, u32{0})), HasSubstr("syssize is 0"));
  EXPECT_THAT(error(with(0x1f4, u32{0xffffffff})), HasSubstr("truncated"));
  EXPECT_THAT(error(with(0x230, u32{0x300000})), HasSubstr("not a power of two"));
  EXPECT_THAT(error(with(0x258, u64{0xfffffffffffff000})), HasSubstr("pref_address"));
  EXPECT_THAT(error(with(0x260, u32{0xffffffff})), HasSubstr("no place for a kernel"));
}

TEST_F(LinuxBoot, ModulesAreRefused) {
  request.modules.push_back({});
  EXPECT_EQ(error(bzimage()), "vmtest: a Linux bzImage takes no modules: use --initrd");
}

}  // namespace
}  // namespace trapline::boot::testing
