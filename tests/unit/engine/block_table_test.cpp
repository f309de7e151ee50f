// Blocks are found by their keys, whatever else has come and gone.
#include "engine/hostcode/block_table.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>

namespace trapline::engine::hostcode {
namespace {

struct BlockTableTest : testing::Test {
  std::deque<Block> blocks;
  BlockTable table;
  Block& add(u64 linear, u64 gpa, u32 mode) {
    Block& b = blocks.emplace_back();
    b.key = {Gva{linear}, Gpa{gpa}, mode};
    table.insert(b);
    return b;
  }
};

TEST_F(BlockTableTest, AllOfTheKeyCounts) {
  Block& a = add(0x1000, 0x5000, 2);
  Block& b = add(0x1000, 0x6000, 2);
  Block& c = add(0x1000, 0x5000, 3);
  EXPECT_EQ(table.find({Gva{0x1000}, Gpa{0x5000}, 2}), &a);
  EXPECT_EQ(table.find({Gva{0x1000}, Gpa{0x6000}, 2}), &b);
  EXPECT_EQ(table.find({Gva{0x1000}, Gpa{0x5000}, 3}), &c);
  EXPECT_EQ(table.find({Gva{0x2000}, Gpa{0x5000}, 2}), nullptr);
  Key crossing{Gva{0x1000}, Gpa{0x5000}, 2};
  crossing.gpa2 = Gpa{0x7000};
  EXPECT_EQ(table.find(crossing), nullptr);
}

TEST_F(BlockTableTest, WhatWasErasedIsGoneAndHidesNothing) {
  std::vector<Block*> all;
  for (u64 i = 0; i < 1000; i++) all.push_back(&add(i * 16, i * 16, 2));
  for (u64 i = 0; i < 1000; i += 2) table.erase(*all[i]);
  for (u64 i = 0; i < 1000; i++) EXPECT_EQ(table.find({Gva{i * 16}, Gpa{i * 16}, 2}), i % 2 ? all[i] : nullptr) << i;
}

TEST_F(BlockTableTest, GrowsAndForgetsAtRandomLikeAMap) {
  std::mt19937_64 random{1};
  std::map<u64, Block*> model;
  for (unsigned step = 0; step < 60000; step++) {
    const u64 linear = random() % 40000 * 4;
    if (const auto known = model.find(linear); known != model.end()) {
      table.erase(*known->second);
      model.erase(known);
    } else {
      model[linear] = &add(linear, linear ^ 0x100000, 2);
    }
  }
  for (u64 linear = 0; linear < 160000; linear += 4) {
    const auto known = model.find(linear);
    ASSERT_EQ(table.find({Gva{linear}, Gpa{linear ^ 0x100000}, 2}), known == model.end() ? nullptr : known->second)
        << linear;
  }
  table.clear();
  EXPECT_EQ(table.find({Gva{model.begin()->first}, Gpa{model.begin()->first ^ 0x100000}, 2}), nullptr);
}

TEST_F(BlockTableTest, ComingAndGoingDoesNotGrowIt) {
  for (u64 i = 0; i < 1000; i++) add(i * 16, i, 2);
  const u64 before = table.slots();
  Block& one = add(0x100000, 0, 2);
  for (u64 i = 1; i < 200000; i++) {
    table.erase(one);
    one.key.linear = Gva{0x100000 + i * 0x1000};
    table.insert(one);
  }
  EXPECT_EQ(table.slots(), before);
  EXPECT_EQ(table.find(one.key), &one);
}

}  // namespace
}  // namespace trapline::engine::hostcode
