#include "boot/boot.h"

#include <gmock/gmock.h>

#include <map>

#include "unit/boot/fixture.h"
#include "unit/scan/packers.h"

namespace trapline::boot::testing {
namespace {

using ::testing::HasSubstr;

class Multiboot1 : public BootTest {
 protected:
  u32 info(u64 offset) const { return at<u32>(cpu.gpr[isa::rbx] + offset); }
};

TEST_F(Multiboot1, FlatImageByAddressFields) {
  std::memset(ram.host(Gpa{0x100000}), 0xff, 0x3000);
  request.command_line = "a=1";
  const auto loaded = load(multiboot1_flat());
  ASSERT_TRUE(loaded) << loaded.error();
  EXPECT_EQ(loaded->format, BootFormat::multiboot1);
  EXPECT_EQ(cpu.rip, 0x100040u);
  EXPECT_EQ(cpu.gpr[isa::rax], 0x2badb002u);
  expect_flat_protected_mode();
  EXPECT_EQ(at<u8>(0x100000), 0x90);
  EXPECT_EQ(at<u8>(0x100400), 0) << "bss";
  EXPECT_EQ(at<u8>(0x101fff), 0);
  EXPECT_EQ(at<u8>(0x102000), 0xff);
  EXPECT_EQ(info(0) & 0x24d, 0x24du & ~32u);
  EXPECT_EQ(info(4), 639u);
  EXPECT_EQ(info(8), 63u * 1024);
  EXPECT_EQ(text(info(16)), "vmtest a=1");
  EXPECT_EQ(text(info(64)), "trapline");
}

TEST_F(Multiboot1, MemoryMapEntriesAreSizedTwenty) {
  ASSERT_TRUE(load(multiboot1_flat()));
  EXPECT_EQ(info(44) % 24, 0u);
  const u64 third = info(48) + 24 * 3;
  EXPECT_EQ(at<u32>(third), 20u);
  EXPECT_EQ(at<u64>(third + 4), MiB);
  EXPECT_EQ(at<u64>(third + 12), 63 * MiB);
  EXPECT_EQ(at<u32>(third + 20), 1u);
}

TEST_F(Multiboot1, ModulesArePageAlignedAboveTheKernelInitrdFirst) {
  const Image initrd(10, std::byte{1}), module(5000, std::byte{2});
  request.initrd = initrd;
  request.modules = {{view(module), "dir/mod", "arg"}};
  ASSERT_TRUE(load(multiboot1_flat()));
  ASSERT_EQ(info(20), 2u);
  const u64 list = info(24);
  EXPECT_EQ(at<u32>(list), 0x102000u);
  EXPECT_EQ(at<u32>(list + 4), 0x10200au);
  EXPECT_EQ(at<u32>(list + 16), 0x103000u);
  EXPECT_EQ(at<u32>(list + 20), 0x103000u + 5000);
  EXPECT_EQ(text(at<u32>(list + 8)), "initrd");
  EXPECT_EQ(text(at<u32>(list + 24)), "dir/mod arg") << "the name comes first, as in the kernel's line";
  EXPECT_EQ(at<u8>(0x103000 + 4999), 2);
}

TEST_F(Multiboot1, ElfIsEnteredThroughItsSegmentsPhysicalAddress) {
  for (const bool is64 : {false, true}) {
    Segment s;
    s.bytes = multiboot1_header();
    s.vaddr = 0xc0100000;
    const auto loaded = load(elf(is64, 0xc0100010, {s}));
    ASSERT_TRUE(loaded) << loaded.error();
    EXPECT_EQ(loaded->format, BootFormat::multiboot1);
    EXPECT_EQ(cpu.rip, 0x100010u);
    expect_flat_protected_mode();
  }
}

TEST_F(Multiboot1, ElfSectionsAreLoadedAndTheirAddressesGiven) {
  Segment s;
  s.bytes = multiboot1_header();
  Image k = elf(false, 0x100000, {s});
  const u64 strings = k.size(), table = strings + 8;
  set<u64>(k, strings, 0x6e69727473000a00);
  set<u32>(k, 32, static_cast<u32>(table));
  set<u16>(k, 46, 40);
  set<u16>(k, 48, 2);
  set<u16>(k, 50, 1);
  k.resize(table + 80);
  set<u32>(k, table + 40 + 4, 3);
  set<u32>(k, table + 40 + 16, static_cast<u32>(strings));
  set<u32>(k, table + 40 + 20, 8);
  ASSERT_TRUE(load(k));
  ASSERT_TRUE(info(0) & 32);
  EXPECT_EQ(info(28), 2u);
  EXPECT_EQ(info(32), 40u);
  EXPECT_EQ(info(40), 1u);
  EXPECT_EQ(at<u64>(at<u32>(info(36) + 40 + 12)), 0x6e69727473000a00u);
}

TEST_F(Multiboot1, RequirementsThatCannotBeMet) {
  EXPECT_THAT(error(multiboot1_flat(0x10013)), HasSubstr("requires unknown features (header flags 0x10)"));
  EXPECT_TRUE(load(multiboot1_flat(0x8010003))) << "bits 16-31 are optional";
}

TEST_F(Multiboot1, AWishForAVideoModeIsAnsweredByNone) {
  ASSERT_TRUE(load(multiboot1_flat(0x10007)));
  EXPECT_EQ(info(0) & 0x1800, 0u);
}

// GRUB legacy and QEMU start kernels with these selectors; those that load no GDT of their own use them.
TEST_F(Multiboot1, SelectorsAreThoseOfAGdtInMemory) {
  ASSERT_TRUE(load(multiboot1_flat()));
  EXPECT_EQ(cpu.segment(isa::Seg::cs).selector, 0x08);
  for (const isa::Seg s : {isa::Seg::ds, isa::Seg::es, isa::Seg::ss, isa::Seg::fs, isa::Seg::gs})
    EXPECT_EQ(cpu.segment(s).selector, 0x10);
  EXPECT_EQ(at<u64>(cpu.gdtr.base), 0u);
  EXPECT_EQ(at<u64>(cpu.gdtr.base + 8), 0x00cf9b000000ffffu);
  EXPECT_EQ(at<u64>(cpu.gdtr.base + 16), 0x00cf93000000ffffu);
  EXPECT_GE(cpu.gdtr.limit, 23);
}

TEST_F(Multiboot1, CompressedImagesAreUnpacked) {
  const Image plain = multiboot1_flat();
  const std::vector<u8> bytes(reinterpret_cast<const u8*>(plain.data()),
                              reinterpret_cast<const u8*>(plain.data()) + plain.size());
  for (const auto& pack : {scan::testing::pack_gzip, scan::testing::pack_xz, scan::testing::pack_zstd}) {
    const std::vector<u8> packed = pack(bytes);
    const auto* first = reinterpret_cast<const std::byte*>(packed.data());
    const auto loaded = load(Image(first, first + packed.size()));
    ASSERT_TRUE(loaded) << loaded.error();
    EXPECT_EQ(loaded->format, BootFormat::multiboot1);
    EXPECT_EQ(at<u8>(0x100000), 0x90);
  }
}

TEST_F(Multiboot1, WhatUnpacksToMoreThanTheMemoryIsRefused) {
  const std::vector<u8> packed = scan::testing::pack_gzip(std::vector<u8>(65 * MiB));
  const auto* first = reinterpret_cast<const std::byte*>(packed.data());
  EXPECT_THAT(error(Image(first, first + packed.size())),
              HasSubstr("compressed with gzip, and does not unpack into 64.0 MiB of memory"));
}

TEST_F(Multiboot1, HostileAddressFields) {
  const auto with = [](u64 field, u32 value) {
    Image k = multiboot1_flat();
    set<u32>(k, 16 + field, value);
    return k;
  };
  EXPECT_THAT(error(with(12, 0)), HasSubstr("header_addr is below load_addr"));
  EXPECT_THAT(error(with(12, 0xfffffff0)), HasSubstr("before the beginning of the file"));
  EXPECT_THAT(error(with(20, 1)), HasSubstr("load_end_addr is below load_addr"));
  EXPECT_THAT(error(with(20, 0xffffffff)), HasSubstr("truncated"));
  EXPECT_THAT(error(with(24, 0x100001)), HasSubstr("bss_end_addr is below"));
  EXPECT_THAT(error(with(24, 0xffffffff)), HasSubstr("does not fit below 3 GiB"));
  EXPECT_THAT(error(with(24, 0x8000000)),
              HasSubstr("but the guest has 64.0 MiB of memory: give --memory 128M or more"));
  EXPECT_THAT(error(with(28, 0)), HasSubstr("entry point lies outside"));
}

TEST_F(Multiboot1, HeaderAtTheVeryEndOfTheFileIsTruncated) {
  Image k(16);
  const u32 header[] = {0x1badb002, 0x10000, 0u - 0x1badb002 - 0x10000};
  std::memcpy(k.data() + 4, header, sizeof header);
  EXPECT_THAT(error(k), HasSubstr("truncated"));
}

TEST_F(Multiboot1, NeitherElfNorAddresses) {
  EXPECT_THAT(error(multiboot1_flat(3)), HasSubstr("without load addresses, and not an ELF"));
}

TEST_F(Multiboot1, ModuleTooLarge) {
  const Image module(63 * MiB);
  request.modules = {{view(module), "m", ""}};
  EXPECT_THAT(error(multiboot1_flat()), HasSubstr("the module is too large: 63.0 MiB in 64.0 MiB"));
}

class Multiboot2 : public BootTest {
 protected:
  // The information tags by type; the last of each.
  std::map<u32, std::string> tags() const {
    std::map<u32, std::string> out;
    const u64 base = cpu.gpr[isa::rbx];
    const u32 total = at<u32>(base);
    EXPECT_EQ(base % 8, 0u);
    for (u64 offset = 8; offset + 8 <= total;) {
      const u32 type = at<u32>(base + offset), size = at<u32>(base + offset + 4);
      out[type] = chars(base + offset + 8, size - 8);
      if (type == 0) {
        EXPECT_EQ(offset + 8, total);
        break;
      }
      offset += (size + 7) & ~7u;
    }
    return out;
  }
  static u32 word(const std::string& s, u64 offset) {
    u32 v;
    std::memcpy(&v, s.data() + offset, 4);
    return v;
  }
};

TEST_F(Multiboot2, FlatImageAndInformation) {
  request.command_line = "b=2";
  const Image module(100, std::byte{3});
  request.modules = {{view(module), "m", "x"}};
  const auto loaded = load(multiboot2_flat());
  ASSERT_TRUE(loaded) << loaded.error();
  EXPECT_EQ(loaded->format, BootFormat::multiboot2);
  EXPECT_EQ(cpu.rip, 0x100008u);
  EXPECT_EQ(cpu.gpr[isa::rax], 0x36d76289u);
  expect_flat_protected_mode();
  const auto t = tags();
  EXPECT_EQ(t.at(1), std::string("vmtest b=2\0", 11));
  EXPECT_EQ(t.at(2), std::string("trapline\0", 9));
  EXPECT_EQ(word(t.at(3), 0), 0x102000u);
  EXPECT_EQ(word(t.at(3), 4), 0x102064u);
  EXPECT_EQ(t.at(3).substr(8), std::string("m x\0", 4));
  EXPECT_EQ(word(t.at(4), 0), 639u);
  EXPECT_EQ(word(t.at(4), 4), 63u * 1024);
  EXPECT_EQ(word(t.at(6), 0), 24u);
  EXPECT_EQ(word(t.at(6), 4), 0u);
  EXPECT_EQ(word(t.at(6), 8 + 24 * 3), MiB);
  EXPECT_EQ(t.at(14).size(), 20u);
  EXPECT_EQ(t.at(14).substr(0, 8), "RSD PTR ");
  EXPECT_EQ(word(t.at(21), 0), 0x100000u);
  EXPECT_TRUE(t.contains(0));
}

TEST_F(Multiboot2, LoadAddressMinusOneMeansFromTheStartOfTheFile) {
  Image k = multiboot2_flat();
  set<u32>(k, 32 + 16 + 12, 0xffffffff);
  const auto loaded = load(k);
  ASSERT_TRUE(loaded) << loaded.error();
  EXPECT_EQ(at<u32>(0x100000 + 32), 0xe85250d6u);
}

TEST_F(Multiboot2, ElfEntryTagOverridesTheElfEntry) {
  Segment s;
  s.bytes = multiboot2_header(tag2(3, 0, {0x100018}));
  // The header must be aligned to 8 in the file.
  Image k = elf(true, 0x100000, {s});
  const auto loaded = load(k);
  ASSERT_TRUE(loaded) << loaded.error();
  EXPECT_EQ(cpu.rip, 0x100018u);
}

TEST_F(Multiboot2, RelocatableImageMovesByPreference) {
  const auto relocatable = [](u32 min, u32 max, u32 preference) {
    return multiboot2_flat(tag2(10, 0, {min, max, 0x200000, preference}));
  };
  struct Case {
    u32 min, max, preference;
    u64 base;
  };
  for (const Case& c :
       {Case{0, 0x3ffffff, 1, 0x200000}, Case{0, 0x3ffffff, 2, 0x3e00000}, Case{0x1000000, 0x3ffffff, 0, 0x1000000}}) {
    const auto loaded = load(relocatable(c.min, c.max, c.preference));
    ASSERT_TRUE(loaded) << loaded.error();
    EXPECT_EQ(loaded->entry, Gpa{c.base + 8});
    EXPECT_EQ(word(tags().at(21), 0), c.base);
    EXPECT_EQ(at<u32>(c.base + 32), 0xe85250d6u);
  }
  EXPECT_THAT(error(relocatable(0x5000000, 0x6000000, 0)), HasSubstr("for the relocatable image"));
  EXPECT_THAT(error(relocatable(0x2000000, 0x1000000, 0)), HasSubstr("damaged multiboot2 header: relocatable"));
}

// Xen asks for the highest place. Nothing is above it then: modules go below.
TEST_F(Multiboot2, AnImageAtTheHighestPlaceLeavesRoomForModules) {
  const Image module(3 * MiB, std::byte{7});
  request.modules = {{view(module), "dom0", ""}};
  const auto loaded = load(multiboot2_flat(tag2(10, 0, {0x200000, 0xffffffff, 0x1000, 2})));
  ASSERT_TRUE(loaded) << loaded.error();
  const u32 base = word(tags().at(21), 0), start = word(tags().at(3), 0), end = word(tags().at(3), 4);
  EXPECT_EQ(base, 64 * MiB - 0x2000);
  EXPECT_GE(start, MiB);
  EXPECT_LE(end, base);
  EXPECT_EQ(at<u8>(start), 7);
  EXPECT_EQ(at<u32>(base + 32), 0xe85250d6u);
}

TEST_F(Multiboot2, RequiredTagsThatCannotBeMetAreRefusedOptionalOnesIgnored) {
  struct Case {
    u16 type;
    std::initializer_list<u32> values;
    const char* message;
  };
  for (const Case& c : {Case{4, {1}, "requires a text or graphics console"}, Case{7, {}, "requires EFI boot services"},
                        Case{99, {}, "unknown header tag (99)"}, Case{1, {4, 6, 77}, "unknown information tag (77)"}}) {
    EXPECT_THAT(error(multiboot2_flat(tag2(c.type, 0, c.values))), HasSubstr(c.message));
    EXPECT_EQ(error(multiboot2_flat(tag2(c.type, 1, c.values))), "(booted)");
  }
  EXPECT_EQ(error(multiboot2_flat(tag2(1, 0, {1, 3, 4, 6, 8, 14}) + tag2(5, 0, {0, 0, 32}) + tag2(6, 0, {}) +
                                  tag2(8, 0, {0x100000}))),
            "(booted)");
}

TEST_F(Multiboot2, DamagedHeaders) {
  Image k = multiboot2_flat();
  set<u32>(k, 32 + 16 + 4, 7);  // first tag's size
  EXPECT_THAT(error(k), HasSubstr("tag 2 is cut short"));
  k = multiboot2_flat();
  set<u32>(k, 32 + 16 + 4, 0xfffffff9);
  EXPECT_THAT(error(k), HasSubstr("tag 2 is cut short"));
  k = multiboot2_flat();
  set<u32>(k, 32 + 8, 0xfffffff0);
  set<u32>(k, 32 + 12, 0u - 0xe85250d6 - 0xfffffff0);
  EXPECT_THAT(error(k), HasSubstr("is not within the first 32 KiB"));
}

class NotKernels : public BootTest {};

TEST_F(NotKernels, AreNamed) {
  const auto bytes = [](std::string_view s) {
    Image k(4096);
    std::memcpy(k.data(), s.data(), s.size());
    return k;
  };
  EXPECT_EQ(error({}), "vmtest: the file is empty");
  EXPECT_EQ(error(bytes("#!/bin/sh")), "vmtest: not a kernel: neither bzImage, ELF with a PVH note, nor multiboot");
  EXPECT_THAT(error(bytes("\x1f\x8b\x08")), HasSubstr("vmtest: compressed with gzip, and does not unpack"));
  EXPECT_THAT(error(bytes(std::string_view("\xfd"
                                           "7zXZ\0",
                                           6))),
              HasSubstr("compressed with xz"));
  EXPECT_THAT(error(bytes("\x28\xb5\x2f\xfd")), HasSubstr("compressed with zstd"));
  EXPECT_THAT(error(bytes("MZ")), HasSubstr("EFI program"));
  remake(MiB);
  EXPECT_EQ(error(bytes("x")), "vmtest: 1.0 MiB of guest memory is too little: give --memory 64M or more");
}

}  // namespace
}  // namespace trapline::boot::testing
