// What pages may run in cages, and which of their instructions are replaced.
#include "engine/patch/page_scan.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>

namespace trapline::engine::patch {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::array<u8, kPageSize> page_with(u32 at, std::initializer_list<int> bytes) {
  std::array<u8, kPageSize> page;
  page.fill(0x90);
  for (const int b : bytes) page[at++] = static_cast<u8>(b);
  return page;
}

PageScan scan(u32 at, std::initializer_list<int> bytes, HostLacks host = {}) {
  return scan_page(page_with(at, bytes), host);
}

TEST(PageScan, PlainCodeRunsAsItIs) {
  const PageScan s = scan(100, {0x48, 0x01, 0xd8, 0x0f, 0x05, 0x0f, 0x31, 0xc3});  // add, syscall, rdtsc, ret
  EXPECT_FALSE(s.refused);
  EXPECT_THAT(s.sites, IsEmpty());
}

TEST(PageScan, InstructionsThatShowTheHostAreSites) {
  EXPECT_THAT(scan(80, {0x0f, 0xa2}).sites, ElementsAre(80));                // cpuid
  EXPECT_THAT(scan(200, {0x0f, 0x01, 0xf9}).sites, ElementsAre(200));        // rdtscp
  EXPECT_THAT(scan(200, {0xf3, 0x0f, 0xc7, 0xf8}).sites, ElementsAre(200));  // rdpid rax
  EXPECT_THAT(scan(200, {0x48, 0x0f, 0x03, 0xc1}).sites, ElementsAre(200));  // lsl rax, ecx
  EXPECT_THAT(scan(200, {0x0f, 0x01, 0x0c, 0x24}).sites, ElementsAre(200));  // sidt [rsp]
  EXPECT_THAT(scan(200, {0x0f, 0xc7, 0xf8}).sites, IsEmpty());               // rdseed eax
}

TEST(PageScan, XgetbvIsOneOnlyWhereXcr0Differs) {
  EXPECT_THAT(scan(80, {0x0f, 0x01, 0xd0}).sites, ElementsAre(80));
  EXPECT_THAT(scan(80, {0x0f, 0x01, 0xd0}, {.xcr0_same = true}).sites, IsEmpty());
}

TEST(PageScan, TheirBytesInsideOtherInstructionsAreNot) {
  EXPECT_THAT(scan(200, {0xb8, 0x0f, 0xa2, 0x00, 0x00}).sites, IsEmpty());              // mov eax, 0xa20f
  EXPECT_THAT(scan(200, {0x0f, 0x84, 0x0f, 0x03, 0x00, 0x00}).sites, IsEmpty());        // je +0x30f
  EXPECT_THAT(scan(200, {0x48, 0x8d, 0x05, 0x0f, 0x00, 0x10, 0x00}).sites, IsEmpty());  // lea rax, [rip+0x10000f]
}

// The page before may end within an instruction: these bytes may be its operand.
TEST(PageScan, WhatAPageBeginsWithIsNotCertain) {
  EXPECT_THAT(scan(0, {0x0f, 0x00, 0x00}).sites, IsEmpty());  // of call +0xf6d
  for (const u32 at : {0u, 1u, 7u, 14u}) {
    const PageScan s = scan(at, {0x0f, 0xa2});
    EXPECT_TRUE(s.refused) << at;
    EXPECT_THAT(s.sites, IsEmpty()) << at;
  }
}

// GHC puts a table before each function: a page may end behind a function and the first bytes of one.
TEST(PageScan, WhatAPageEndsWithIsNotCertain) {
  for (const u32 at : {0xff0u, 0xff8u}) {
    const PageScan s = scan(at, {0x0f, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00});  // sldt [rax], else
    EXPECT_FALSE(s.refused) << at;
    EXPECT_THAT(s.sites, IsEmpty()) << at;
  }
  const PageScan s = scan(4094, {0x0f, 0xa2});
  EXPECT_TRUE(s.refused);
  EXPECT_THAT(s.sites, IsEmpty());
  EXPECT_THAT(scan(4000, {0x0f, 0xa2}).sites, ElementsAre(4000));
}

// SBCL has the header of each function among the code of a file.
TEST(PageScan, TablesAmongCodeAreNotReplaced) {
  EXPECT_THAT(scan(200, {0x0f, 0x00, 0x41, 0xc6}).sites, IsEmpty());               // sldt [rcx-0x3a]
  EXPECT_THAT(scan(200, {0x0f, 0x01, 0x0a}).sites, IsEmpty());                     // sidt [rdx]
  EXPECT_THAT(scan(200, {0x0f, 0x03, 0x5a, 0xfd}).sites, IsEmpty());               // lsl ebx, [rdx-3]
  EXPECT_THAT(scan(200, {0x0f, 0x00, 0x04, 0x24}).sites, IsEmpty());               // sldt [rsp]
  EXPECT_THAT(scan(200, {0x0f, 0x01, 0x64, 0x24, 0x08}).sites, ElementsAre(200));  // smsw [rsp+8]
}

// What a just-in-time compiler has written among zeros: a small number is an opcode to whoever is out of step by one.
TEST(PageScan, NumbersAmongZerosAreNoInstructions) {
  for (u32 number = 0; number < 4096; number++) {
    std::array<u8, kPageSize> page{};
    for (u32 at = 1024; at < 1536; at += 64) {
      const u32 n = number - (1536 - at) / 64;
      const u8 code[] = {0xb8, static_cast<u8>(n), static_cast<u8>(n >> 8), 0, 0, 0xc3};  // mov eax, n; ret
      std::copy(std::begin(code), std::end(code), page.begin() + at);
      page[at + 8] = static_cast<u8>(n), page[at + 9] = static_cast<u8>(n >> 8);
    }
    EXPECT_THAT(scan_page(page, {}).sites, IsEmpty()) << number;
  }
}

// Tables lie in the text of cryptographic libraries, and are read there.
TEST(PageScan, DataIsNotReplaced) {
  u64 state = 1;
  unsigned candidates = 0;
  for (int i = 0; i < 400; i++) {
    std::array<u8, kPageSize> page;
    for (u8& byte : page) byte = static_cast<u8>((state = state * 6364136223846793005 + 1442695040888963407) >> 56);
    for (u32 at = 40; at < kPageSize; at += 100) page[at] = 0x0f, page[at + 1] = at % 3 ? 0xa2 : 0x03, candidates++;
    EXPECT_THAT(scan_page(page, {}).sites, IsEmpty()) << i;
  }
  EXPECT_GT(candidates, 10'000U);
}

TEST(PageScan, CpuidThatMayBeDataRefusesThePage) {
  std::array<u8, kPageSize> page{};
  page[2000] = 0x0f, page[2001] = 0xa2;
  const PageScan s = scan_page(page, {});
  EXPECT_TRUE(s.refused);
  EXPECT_THAT(s.sites, IsEmpty());
}

TEST(PageScan, CpuidThatMayBeDataIsTheHostsToFaultWhereItCan) {
  std::array<u8, kPageSize> page{};
  page[2000] = 0x0f, page[2001] = 0xa2;
  EXPECT_FALSE(scan_page(page, {.cpuid_faults = true}).refused);
  EXPECT_THAT(scan_page(page, {.cpuid_faults = true}).sites, IsEmpty());
  EXPECT_FALSE(scan(0, {0x0f, 0xa2}, {.cpuid_faults = true}).refused);
  EXPECT_THAT(scan(200, {0x0f, 0xa2}, {.cpuid_faults = true}).sites, ElementsAre(200)) << "certain: cheaper replaced";
}

// The vDSO has the alternatives to its clock beside its code, one behind the other.
TEST(PageScan, WhatCpuidDoesNotOfferRefusesNoPage) {
  std::array<u8, kPageSize> page{};
  const u8 alternatives[] = {0x0f, 0x31, 0x0f, 0x01, 0xf9, 0x0f, 0x31, 0x0f, 0x01, 0xf9, 0xf3, 0x0f, 0xc7, 0xf8};
  std::copy(std::begin(alternatives), std::end(alternatives), page.begin() + 0xd44);
  EXPECT_TRUE(scan_page(page, {}).refused);
  const PageScan s = scan_page(page, {.aux_offered = false});
  EXPECT_FALSE(s.refused);
  EXPECT_THAT(s.sites, IsEmpty());
  EXPECT_THAT(scan(200, {0x0f, 0x01, 0xf9}, {.aux_offered = false}).sites,
              ElementsAre(200));  // certain: a trap all the same
}

TEST(PageScan, WhatReachesTheHostsHypervisorIsRefusedAtEveryOffset) {
  EXPECT_TRUE(scan(4093, {0x0f, 0x01, 0xc1}).refused);                          // vmcall
  EXPECT_TRUE(scan(7, {0x0f, 0x01, 0xd9}).refused);                             // vmmcall
  EXPECT_TRUE(scan(7, {0x48, 0xb8, 0x0f, 0x01, 0xc1, 0, 0, 0, 0, 0}).refused);  // inside a mov
  EXPECT_TRUE(scan(7, {0x0f, 0x01, 0xef}).refused);                             // wrpkru
}

TEST(PageScan, BordersAreLookedAtToo) {
  const std::array<u8, 6> apart{0x90, 0x0f, 0x01, 0xc1, 0x90, 0x90}, harmless{0x90, 0x90, 0x0f, 0x05, 0xc1, 0x90};
  EXPECT_FALSE(border_runs(apart));
  EXPECT_TRUE(border_runs(harmless));
}

}  // namespace
}  // namespace trapline::engine::patch
