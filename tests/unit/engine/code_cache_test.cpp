// Links between blocks, what ends them, and blocks that are moved to another address. The code of these blocks is never
// run: each has one jump that may be linked, and what a test is about.
#include "engine/hostcode/code_cache.h"

#include <gtest/gtest.h>

#include <optional>

#include "engine/hostcode/memory_lowering.h"
#include "unit/cpu/bare_vm.h"

namespace trapline::engine::hostcode {
namespace {

namespace pte = cpu::test::pte;

constexpr u64 kCode = 0x200000, kUser = 0x400000000000, kKernel = 0xffffffff81000000;
constexpr u32 kMode = 2;

// Only what a move asks.
struct Constants final : MemoryLowering {
  void prepare(const Context&, std::vector<TranslatedInsn>&) const override {}
  void begin_block() override {}
  void reach(Lowering&, const Place&, unsigned, bool, const SharedLookup&, ExitStub&) override {}
  Mem reached(const Place&) const override { return {}; }
  void tail(Lowering&, u32) override {}
  Mem jump_slot(Emitter&, Mem slot, u8) const override { return slot; }
  void turn(Emitter&, const RunningMode&) const override {}
  u64 thunk(const ExitStub&, bool) const override { return 0; }
  u64 put_back(const ExitStub&) const override { return 0; }
  u64 constant(const Fixup& f, Gva linear) const override { return linear.raw * 2 + f.size; }
};

struct CodeCacheTest : testing::Test {
  cpu::test::BareVm vm;
  // Not beside the vCPU, on a heap that AddressSanitizer leaves no room in: no code of these reads it.
  std::unique_ptr<Region> region = Region::make(reinterpret_cast<u64>(&kMode), nullptr, 4 * MiB);
  std::vector<u64> slots = std::vector<u64>(kViews * JumpCache::kBytes / sizeof(u64));
  std::optional<JumpCache> jumps;
  std::optional<CodeCache> cache;
  std::unique_ptr<Emitter> hot = std::make_unique<Emitter>(), cold = std::make_unique<Emitter>();
  std::vector<Fixup> fixups, cold_fixups;
  void SetUp() override {
    ASSERT_TRUE(region);
    std::array<u64, kViews> ends{};
    for (unsigned v = 0; v < kViews; v++) ends[v] = reinterpret_cast<u64>(slots.data()) + (v + 1) * JumpCache::kBytes;
    jumps.emplace(ends);
    cache.emplace(vm.cpu, *region, *jumps, true);
    vm.enter_long64();
  }

  Block& begin(u64 linear, u64 gpa, u32 mode = kMode, bool stable = false) {
    Block& b = cache->append();
    b.key = {Gva{linear}, Gpa{gpa}, mode};
    b.stable = stable;
    b.count = 1;
    b.bytes = 4;
    b.code = cache->keep(std::span<const u8>{&vm.at<u8>(gpa), b.bytes});
    b.generation = &vm.code.generation(gpa / kPageSize);
    b.first_site = cache->sites().size();
    fixups.clear(), cold_fixups.clear();
    hot->begin(region->next(), &fixups);
    cold->begin(region->next_cold(), &cold_fixups);
    b.entry = hot->pc();
    b.cold = cold->pc();
    return b;
  }
  // A jump to the code behind the block, until it is linked.
  ExitStub& jump(Block& b) {
    ExitStub& s = cache->sites().emplace_back();
    s.kind = ExitStub::Kind::link;
    s.block = &b;
    s.number = cache->sites().size() - 1;
    hot->byte(0xE9);
    s.patch = hot->pc();
    hot->note(Fixup::Kind::cold, hot->size(), cold->size());
    hot->imm32(cold->pc() - (hot->pc() + 4));
    cold->mov_imm64(r11, reinterpret_cast<u64>(&s));
    cold->note(Fixup::Kind::site, cold->size() - 8, s.number);
    return s;
  }
  void admit(Block& b) {
    b.stale_stub = cold->pc();
    cold->ret();
    b.end = hot->pc();
    b.cold_end = cold->pc();
    b.sites = cache->sites().size() - b.first_site;
    b.fixups = cache->keep<Fixup>(fixups);
    b.cold_fixups = cache->keep<Fixup>(cold_fixups);
    ASSERT_TRUE(cache->mark(b));
    ASSERT_TRUE(region->add({hot->data(), hot->size()}, {cold->data(), cold->size()}));
    cache->admit(b);
  }
  struct Made {
    Block& block;
    ExitStub& link;
  };
  Made make(u64 linear, u64 gpa, u32 mode = kMode, bool stable = false) {
    Block& b = begin(linear, gpa, mode, stable);
    ExitStub& s = jump(b);
    admit(b);
    return {b, s};
  }
  template <class T>
  static T emitted(u64 place) {
    T value;
    std::memcpy(&value, reinterpret_cast<const void*>(place), sizeof value);
    return value;
  }
  static u64 leads_to(u64 displacement) { return displacement + 4 + static_cast<u64>(i64{emitted<i32>(displacement)}); }
  // Where a block's entry has become a jump to.
  static u64 redirected(const Block& b) { return emitted<u8>(b.entry) == 0xE9 ? leads_to(b.entry + 1) : 0; }
  bool links(const Made& from, const Made& to) {
    cache->link(from.link, to.block);
    return leads_to(from.link.patch) == to.block.entry;
  }
};

TEST_F(CodeCacheTest, BlocksOfOnePageAndFrameAreLinked) {
  const Made a = make(kUser, kCode), b = make(kUser + 0x40, kCode + 0x40);
  EXPECT_EQ(leads_to(a.link.patch), a.block.cold);
  EXPECT_TRUE(links(a, b));
  EXPECT_TRUE(links(b, a)) << "and back";
  EXPECT_TRUE(links(a, a)) << "and to itself";
}

TEST_F(CodeCacheTest, NothingLeadsToAnotherModePageOrFrame) {
  const Made a = make(kUser, kCode);
  EXPECT_FALSE(links(a, make(kUser + 0x40, kCode + 0x40, kMode + 0x100))) << "another mode";
  EXPECT_FALSE(links(a, make(kUser + kPageSize, kCode + kPageSize))) << "another page";
  EXPECT_FALSE(links(a, make(kUser + 0x40, kCode + kPageSize + 0x40))) << "its page in another frame";
  EXPECT_FALSE(links(a, make(kUser + kPageSize, kCode))) << "its frame at another page";
  EXPECT_FALSE(links(a, make(kKernel, kCode + 2 * kPageSize, kMode, true))) << "a stable page";
  EXPECT_EQ(leads_to(a.link.patch), a.block.cold) << "it leads where it did";
}

TEST_F(CodeCacheTest, AnExitStubLinksNoOtherBlockThanItsOwn) {
  const Made a = make(kUser, kCode), b = make(kUser + 0x40, kCode + 0x40);
  a.link.block = &b.block;
  EXPECT_DEATH(cache->link(a.link, b.block), "is not of the block of 0x400000000040");
  a.link.block = &a.block;
  a.link.kind = ExitStub::Kind::indirect;
  EXPECT_DEATH(cache->link(a.link, b.block), "is no link");
}

TEST_F(CodeCacheTest, RightsAreTheSameOnBothEndsOfALink) {
  const Made a = make(kUser, kCode), b = make(kUser + 0x40, kCode + 0x40);
  b.block.view = View::user;  // in the mode of another
  EXPECT_DEATH(cache->link(a.link, b.block), "a link from view 0 to view 2");
}

TEST_F(CodeCacheTest, StablePagesAreLinkedWhereverTheyLie) {
  const Made a = make(kKernel, kCode, kMode, true), b = make(kKernel + 5 * kPageSize, kCode + kPageSize, kMode, true);
  EXPECT_TRUE(links(a, b));
  EXPECT_FALSE(links(a, make(kKernel + 6 * kPageSize, kCode + 2 * kPageSize, kMode + 0x100, true))) << "another mode";
}

TEST_F(CodeCacheTest, ABlockThatCrossesIsLinkedOnlyFromOneThatReliesOnBothPages) {
  const auto crossing = [&](u64 second) {
    Block& b = begin(kUser + 0xffe, kCode + 0xffe);
    b.key.gpa2 = Gpa{second};
    b.generation2 = &vm.code.generation(second / kPageSize);
    std::array<u8, 4> bytes{};
    std::memcpy(bytes.data(), &vm.at<u8>(kCode + 0xffe), 2);
    std::memcpy(bytes.data() + 2, &vm.at<u8>(second), 2);
    b.code = cache->keep(std::span<const u8>{bytes});
    ExitStub& s = jump(b);
    admit(b);
    return Made{b, s};
  };
  vm.at<u16>(kCode + 0xffe) = 0x1234;
  const Made plain = make(kUser, kCode), a = crossing(kCode + 0x5000), b = crossing(kCode + 0x7000);
  EXPECT_FALSE(links(plain, a));
  EXPECT_FALSE(links(b, a)) << "the second page in another frame";
  EXPECT_TRUE(links(a, a));
  EXPECT_TRUE(links(a, plain)) << "of the first page alone";
}

TEST_F(CodeCacheTest, WithoutLinksNothingIsLinked) {
  cache.emplace(vm.cpu, *region, *jumps, false);
  const Made a = make(kUser, kCode);
  EXPECT_FALSE(links(a, a));
}

TEST_F(CodeCacheTest, WhatIsOverwrittenLeadsToItsStubAndThenToTheNewBlock) {
  const Made a = make(kUser, kCode), b = make(kUser + 0x40, kCode + 0x40);
  ASSERT_TRUE(links(a, b));
  vm.at<u8>(kCode + 0x40) = 0x90;
  vm.code.written(kCode / kPageSize, 0x40, 1);
  ASSERT_TRUE(cache->code_changed());
  cache->check_code();
  EXPECT_FALSE(cache->code_changed());
  EXPECT_EQ(redirected(b.block), b.block.stale_stub);
  EXPECT_EQ(cache->find(Gva{kUser + 0x40}, Gpa{kCode + 0x40}, kMode), nullptr);
  EXPECT_EQ(cache->find(Gva{kUser}, Gpa{kCode}, kMode), &a.block) << "its bytes are the same";
  EXPECT_FALSE(cache->may_link(a.block, kMode, b.block)) << "stale";
  const Made again = make(kUser + 0x40, kCode + 0x40);
  EXPECT_EQ(redirected(b.block), again.block.entry) << "who leads to the old one finds the new one";
}

// What CodeCache watches over for the links between stable pages.
TEST_F(CodeCacheTest, StableBlocksEndWithTheirMapping) {
  struct {
    const char* what;
    u64 gpa, bits;
    bool holds;
  } const cases[] = {
      {"as it was", kCode, pte::p | pte::g, true},
      {"writable now", kCode, pte::p | pte::g | pte::w, true},
      {"another frame", kCode + kPageSize, pte::p | pte::g, false},
      {"not executable", kCode, pte::p | pte::g | pte::nx, false},
      {"not global", kCode, pte::p, false},
      {"not there", kCode, pte::g, false},
  };
  for (const auto& c : cases) {
    for (const bool all : {true, false}) {
      cache->clear();
      vm.map64(kKernel, kCode, pte::p | pte::g);
      const Made a = make(kKernel + 0x80, kCode + 0x80, kMode, true);
      vm.map64(kKernel, c.gpa, c.bits);
      cache->check_mapping(Remapped{.all = all, .pages = {Gva{kKernel}}});
      EXPECT_EQ(!a.block.stale, c.holds) << c.what << (all ? ", after a flush" : ", after INVLPG");
    }
  }
}

TEST_F(CodeCacheTest, APageThatBecomesTheUsersIsNoMoreTheKernels) {
  vm.cpu.cr4 |= cpu::cr4::smep;
  vm.map64(kKernel, kCode, pte::p | pte::g);
  const Made a = make(kKernel, kCode, kMode, true);
  vm.at<u64>(vm.entry64(kKernel, 0)) |= pte::u;
  cache->check_mapping(Remapped{.all = true, .pages = {}});
  EXPECT_TRUE(a.block.stale);
}

struct MoveTest : CodeCacheTest {
  static constexpr u64 kThere = kUser + 0x1234000;
  Constants memory;
  std::unique_ptr<Emitter> hot_copy = std::make_unique<Emitter>(), cold_copy = std::make_unique<Emitter>();
  CodeCache::Moved move(const Block& from, u64 linear) {
    return cache->move(from, Gva{linear}, memory, *hot_copy, *cold_copy);
  }
  Block& moved() { return *cache->find(Gva{kThere}, Gpa{kCode}, kMode); }
};

TEST_F(MoveTest, AllThatNamesAnAddressNamesTheNewOne) {
  Block& b = begin(kUser, kCode);
  b.movable = true;
  const u64 outside = region->next() - 0x100;
  hot->mov_imm64(rax, kUser + 0x77);
  hot->note(Fixup::Kind::linear, hot->size() - 8, kUser + 0x77);
  hot->mov_imm64(rcx, memory.constant({Fixup::Kind::look_up, 4, 0, 0}, Gva{kUser + 0x88}));
  hot->note(Fixup::Kind::look_up, hot->size() - 8, kUser + 0x88, 4);
  hot->jmp(outside);
  const u64 there = hot->pc();  // a look-up goes on here, behind its cold code
  hot->load(rdx, {.disp = JumpCache::offset(Gva{kUser + 0x99})});
  const u32 slot = hot->size() - 4;
  hot->note(Fixup::Kind::jump, slot, kUser + 0x99);
  ExitStub& s = jump(b);
  s.rip = kUser + 2, s.resume = there, s.hit = b.cold;
  cold->byte(0xE9);
  cold->note(Fixup::Kind::hot, cold->size(), there - b.entry);
  cold->imm32(there - (cold->pc() + 4));
  const u32 back = cold->size() - 4;
  const Block::Pointer x87[] = {{.rip = kUser + 2, .index = 0, .fop = 1, .all = true, .segment = 3}};
  b.x87 = cache->keep(std::span<const Block::Pointer>{x87});
  admit(b);
  ASSERT_EQ(move(b, kThere), CodeCache::Moved::yes);
  const Block& to = moved();
  const u64 by = kThere - kUser;
  ASSERT_NE(to.entry, b.entry);
  EXPECT_EQ(to.end - to.entry, b.end - b.entry);
  EXPECT_EQ(emitted<u64>(to.entry + 2), kThere + 0x77);
  EXPECT_EQ(emitted<u64>(to.entry + 12), (kThere + 0x88) * 2 + 4);
  EXPECT_EQ(leads_to(to.entry + 21), outside) << "what is outside stays there";
  EXPECT_EQ(emitted<i32>(to.entry + slot), JumpCache::offset(Gva{kThere + 0x99}));
  const ExitStub& copy = cache->sites()[to.first_site];
  EXPECT_EQ(copy.block, &to);
  EXPECT_EQ(copy.rip, kThere + 2);
  EXPECT_EQ(copy.resume - to.entry, there - b.entry);
  EXPECT_EQ(copy.hit, to.cold);
  EXPECT_EQ(leads_to(copy.patch), to.cold);
  EXPECT_EQ(emitted<u64>(to.cold + 2), reinterpret_cast<u64>(&copy)) << "its own stub, not the other's";
  EXPECT_EQ(leads_to(to.cold + back), to.entry + (there - b.entry));
  EXPECT_EQ(to.x87[0].rip, b.x87[0].rip + by);
}

TEST_F(MoveTest, TheCopyIsLinkedAndEndsAsAnyBlock) {
  Block& b = begin(kUser, kCode);
  b.movable = true;
  jump(b);
  admit(b);
  ASSERT_EQ(move(b, kThere), CodeCache::Moved::yes);
  Block& to = moved();
  cache->link(cache->sites()[to.first_site], to);
  EXPECT_EQ(leads_to(cache->sites()[to.first_site].patch), to.entry);
  EXPECT_EQ(leads_to(cache->sites()[b.first_site].patch), b.cold) << "the other is as it was";
  vm.at<u8>(kCode) = 0x90;
  vm.code.written(kCode / kPageSize, 0, 1);
  cache->check_code();
  EXPECT_EQ(redirected(to), to.stale_stub);
  EXPECT_EQ(redirected(b), b.stale_stub);
}

TEST_F(MoveTest, WhatCannotBeMovedIsNot) {
  Block& b = begin(kUser, kCode);
  b.movable = true;
  hot->mov_imm64(rax, kUser);
  hot->note(Fixup::Kind::linear, hot->size() - 8, kUser);
  jump(b);
  admit(b);
  EXPECT_EQ(move(b, 0x400000), CodeCache::Moved::no) << "its constants would have a shorter form";
  EXPECT_EQ(move(b, kKernel), CodeCache::Moved::no) << "the upper half";
  b.movable = false;
  EXPECT_EQ(move(b, kThere), CodeCache::Moved::no);
  b.movable = true;
  vm.at<u8>(kCode) = 0x90;
  vm.code.written(kCode / kPageSize, 0, 1);
  EXPECT_EQ(move(b, kThere), CodeCache::Moved::no) << "its bytes are other ones by now";
  EXPECT_EQ(cache->find(Gva{kThere}, Gpa{kCode}, kMode), nullptr);
}

// Processes of one program: each has the code at a page of its own.
struct PlacementTest : MoveTest {
  u64 next_process = kUser;
  void switch_address_space() { jumps->forget_unstable(); }
  // As the translator does for the first instruction of a page that has run elsewhere.
  Block& start_at(u64 linear, u64 offset = 0) {
    cache->settle(Gva{linear + offset}, Gpa{kCode + offset}, kMode, memory);
    if (Block* there = cache->find(Gva{linear + offset}, Gpa{kCode + offset}, kMode)) return *there;
    const Block* known = cache->movable(Gpa{kCode + offset}, kMode);
    EXPECT_TRUE(known && move(*known, linear + offset) == CodeCache::Moved::yes);
    return *cache->find(Gva{linear + offset}, Gpa{kCode + offset}, kMode);
  }
  Block& start_process() {
    switch_address_space();
    return start_at(next_process += 0x10000000);
  }
  Block& make_movable(u64 offset) {
    Block& b = begin(kUser + offset, kCode + offset);
    b.movable = true;
    hot->mov_imm64(rax, kUser + 0x77);
    hot->note(Fixup::Kind::linear, hot->size() - 8, kUser + 0x77);
    hot->mov_imm64(rcx, memory.constant({Fixup::Kind::look_up, 4, 0, 0}, Gva{kUser + 0x88}));
    hot->note(Fixup::Kind::look_up, hot->size() - 8, kUser + 0x88, 4);
    hot->load(rdx, {.disp = JumpCache::offset(Gva{kUser + 0x99})});
    hot->note(Fixup::Kind::jump, hot->size() - 4, kUser + 0x99);
    ExitStub& s = jump(b);
    s.rip = kUser + offset + 2;
    cold->mov_imm64(rax, kUser + 0x55);
    cold->note(Fixup::Kind::linear, cold->size() - 8, kUser + 0x55);
    const Block::Pointer x87[] = {{.rip = kUser + offset + 2, .index = 0, .fop = 1, .all = true, .segment = 3}};
    b.x87 = cache->keep(std::span<const Block::Pointer>{x87});
    admit(b);
    return b;
  }
  void expect_at(const Block& b, u64 page, u64 offset) {
    EXPECT_EQ(b.key.linear, Gva{page + offset});
    EXPECT_EQ(emitted<u64>(b.entry + 2), page + 0x77);
    EXPECT_EQ(emitted<u64>(b.entry + 12), (page + 0x88) * 2 + 4);
    EXPECT_EQ(emitted<i32>(b.entry + 20 + 4), JumpCache::offset(Gva{page + 0x99}));
    EXPECT_EQ(cache->sites()[b.first_site].rip, page + offset + 2);
    EXPECT_EQ(cache->sites()[b.first_site].block, &b);
    EXPECT_EQ(emitted<u64>(b.cold + 2), reinterpret_cast<u64>(&cache->sites()[b.first_site]));
    EXPECT_EQ(emitted<u64>(b.cold + 12), page + 0x55);
    EXPECT_EQ(b.x87[0].rip, page + offset + 2);
  }
};

TEST_F(PlacementTest, ProcessesThatEndLeaveTheirCodeToTheNext) {
  make_movable(0);
  make_movable(0x40);
  const u64 at_first = region->used();
  for (unsigned i = 0; i < 100; i++) {
    const Block& first = start_process();
    expect_at(first, next_process, 0);
    expect_at(start_at(next_process, 0x40), next_process, 0x40);
  }
  EXPECT_LE(region->used(), at_first * Family::kFew) << "a copy for each";
  EXPECT_EQ(cache->find(Gva{kUser}, Gpa{kCode}, kMode), nullptr) << "the first has ended long ago";
}

TEST_F(PlacementTest, AllBlocksOfThePageComeAlongWithTheirLinks) {
  Block& a = make_movable(0);
  Block& b = make_movable(0x40);
  cache->link(cache->sites()[a.first_site], b);
  while (a.key.linear.page() == Gva{kUser}) start_process();
  expect_at(a, next_process, 0);
  expect_at(b, next_process, 0x40);
  EXPECT_EQ(cache->find(Gva{next_process + 0x40}, Gpa{kCode + 0x40}, kMode), &b);
  EXPECT_EQ(leads_to(cache->sites()[a.first_site].patch), b.entry);
}

TEST_F(PlacementTest, WhatStaysIsNoLongerLinkedWithWhatGoes) {
  Block& a = make_movable(0);
  const Made stays = make(kUser + 0x80, kCode + 0x80);
  ASSERT_TRUE(links(stays, {a, cache->sites()[a.first_site]}));
  ASSERT_TRUE(links({a, cache->sites()[a.first_site]}, stays));
  jumps->put(View::kernel, Gva{kUser}, 1, a.entry, false);
  while (a.key.linear.page() == Gva{kUser}) start_process();
  EXPECT_EQ(leads_to(cache->sites()[a.first_site].patch), a.cold);
  EXPECT_TRUE(stays.block.stale);
  EXPECT_EQ(redirected(stays.block), stays.block.stale_stub);
  EXPECT_EQ(jumps->find(View::kernel, Gva{kUser}, 1), 0u);
}

TEST_F(PlacementTest, TheJumpCacheForgetsTheOldAddressAtOnce) {
  Block& a = make_movable(0);
  for (unsigned i = 0; i < Family::kFew - 1; i++) start_process();
  switch_address_space();
  jumps->put(View::kernel, Gva{kUser}, 1, a.entry, false);  // by a link from another page, say
  start_at(next_process += 0x10000000);
  ASSERT_NE(a.key.linear.page(), Gva{kUser});
  EXPECT_EQ(jumps->find(View::kernel, Gva{kUser}, 1), 0u);
}

TEST_F(PlacementTest, ProcessesThatTakeTurnsKeepTheirs) {
  make_movable(0);
  constexpr unsigned kProcesses = 10;
  const auto round = [&] {
    for (u64 i = 0; i < kProcesses; i++) {
      switch_address_space();
      expect_at(start_at(kUser + i * 0x10000000), kUser + i * 0x10000000, 0);
    }
  };
  for (unsigned i = 0; i < 4; i++) round();
  std::vector<Block*> all;
  for (u64 i = 0; i < kProcesses; i++) all.push_back(cache->find(Gva{kUser + i * 0x10000000}, Gpa{kCode}, kMode));
  const u64 used = region->used();
  for (unsigned i = 0; i < 4; i++) round();
  EXPECT_EQ(region->used(), used);
  for (u64 i = 0; i < kProcesses; i++)
    EXPECT_EQ(cache->find(Gva{kUser + i * 0x10000000}, Gpa{kCode}, kMode), all[i]) << i;
}

TEST_F(PlacementTest, OneAddressSpaceMayHaveItTwice) {
  make_movable(0);
  for (u64 i = 0; i < 2 * Family::kFew; i++) start_at(kUser + i * 0x10000000);
  for (u64 i = 0; i < 2 * Family::kFew; i++)
    EXPECT_NE(cache->find(Gva{kUser + i * 0x10000000}, Gpa{kCode}, kMode), nullptr) << i;
}

TEST_F(PlacementTest, StaleOnesStayWhereTheyAre) {
  Block& a = make_movable(0);
  vm.at<u8>(kCode) = 0x90;
  vm.code.written(kCode / kPageSize, 0, 1);
  cache->check_code();
  ASSERT_TRUE(a.stale);
  make_movable(0x40);
  for (unsigned i = 0; i < 3 * Family::kFew; i++) {
    switch_address_space();
    start_at(next_process += 0x10000000, 0x40);
  }
  EXPECT_EQ(a.key.linear, Gva{kUser});
  EXPECT_EQ(redirected(a), a.stale_stub);
}

TEST_F(PlacementTest, NothingGoesWhereItsConstantsWouldBeShort) {
  Block& a = make_movable(0);
  for (unsigned i = 0; i < Family::kFew - 1; i++) start_process();
  switch_address_space();
  cache->settle(Gva{0x400000}, Gpa{kCode}, kMode, memory);
  expect_at(a, kUser, 0);
}

// What is moved from a copy whose original is elsewhere by now.
TEST_F(PlacementTest, ACopyIsCopiedLikeTheFirst) {
  make_movable(0);
  Block& copy = start_at(kThere);
  expect_at(copy, kThere, 0);
  ASSERT_EQ(cache->movable(Gpa{kCode}, kMode), &copy);
  expect_at(start_at(kThere + 0x5000000), kThere + 0x5000000, 0);
}

}  // namespace
}  // namespace trapline::engine::hostcode
