// The map for perf, of a log as a core writes it, and as none should.
#include "monitor/perf_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>

#include "channel/code_names.h"

namespace trapline::monitor {
namespace {

using channel::CodeNames;

class PerfMapTest : public testing::Test {
 protected:
  void SetUp() override {
    log_ = PerfMap::create_log();
    ASSERT_TRUE(log_);
    names_ =
        static_cast<CodeNames*>(::mmap(nullptr, sizeof(CodeNames), PROT_READ | PROT_WRITE, MAP_SHARED, log_.get(), 0));
    ASSERT_NE(names_, MAP_FAILED);
  }
  void TearDown() override {
    ::munmap(names_, sizeof(CodeNames));
    std::remove(map_.path().c_str());
  }
  std::string text() const {
    std::ifstream in{map_.path()};
    return {std::istreambuf_iterator<char>{in}, {}};
  }

  Fd log_;
  CodeNames* names_ = nullptr;
  PerfMap map_;
  const pid_t pid_ = 400000000 + ::getpid();  // nobody's
};

TEST_F(PerfMapTest, HasSymbolsAndGoesOnWhereItEnded) {
  const Symbols symbols = Symbols::parse("ffffffff81000100 T schedule\n0000000000401000 T not_a_kernel\n");
  ASSERT_EQ(map_.begin(log_.get(), pid_), "");
  names_->add(Hva{0x7f0000001000}, 0x40, Gva{0xffffffff8100011c}, 0);
  names_->add(Hva{0x7f0000001040}, 0x20, Gva{0x401000}, 0);
  EXPECT_EQ(map_.update(log_.get(), symbols), "");
  names_->add(Hva{0x7f0000000000}, 0x80, Gva{0}, 0);
  EXPECT_EQ(map_.update(log_.get(), symbols), "");
  EXPECT_EQ(map_.update(log_.get(), symbols), "");
  EXPECT_EQ(text(),
            "7f0000001000 40 schedule+0x1c [ffffffff8100011c]\n"
            "7f0000001040 20 guest [401000]\n"
            "7f0000000000 80 trapline thunks\n");
}

TEST_F(PerfMapTest, WaitsForEntriesThatAreBeingWritten) {
  ASSERT_EQ(map_.begin(log_.get(), pid_), "");
  names_->count = 1;
  names_->name[0].host = Hva{0x1000}, names_->name[0].bytes = 16, names_->name[0].guest = Gva{0x2000};
  EXPECT_EQ(map_.update(log_.get(), {}), "");
  EXPECT_EQ(text(), "");
  names_->name[0].ready = 1;
  EXPECT_EQ(map_.update(log_.get(), {}), "");
  EXPECT_EQ(text(), "1000 10 guest [2000]\n");
}

TEST_F(PerfMapTest, BelievesNothingOfTheLog) {
  ASSERT_EQ(map_.begin(log_.get(), pid_), "");
  names_->add(Hva{~0ull}, 16, Gva{0x1000}, 0);      // a kernel address
  names_->add(Hva{0x1000}, 0, Gva{0x1000}, 0);      // nothing
  names_->add(Hva{0x1000}, ~0ull, Gva{0x1000}, 0);  // everything
  names_->add(Hva{0x5000}, 16, Gva{0x3000}, 0);
  EXPECT_EQ(map_.update(log_.get(), {}), "");
  EXPECT_EQ(text(), "5000 10 guest [3000]\n");
  names_->count = ~0u;
  for (u32 i = 4; i < CodeNames::kCapacity; i++) names_->name[i].ready = 1;
  EXPECT_THAT(map_.update(log_.get(), {}), testing::HasSubstr("full"));
  EXPECT_EQ(map_.update(log_.get(), {}), "");  // said once
}

TEST_F(PerfMapTest, ACoreAfterAResetHasAMapOfItsOwn) {
  ASSERT_EQ(map_.begin(log_.get(), pid_), "");
  names_->add(Hva{0x5000}, 16, Gva{0x3000}, 0);
  EXPECT_EQ(map_.update(log_.get(), {}), "");
  std::remove(map_.path().c_str());
  ASSERT_EQ(map_.begin(log_.get(), pid_ + 1), "");
  names_->add(Hva{0x6000}, 16, Gva{0x4000}, 0);
  EXPECT_EQ(map_.update(log_.get(), {}), "");
  EXPECT_EQ(text(), "6000 10 guest [4000]\n");
}

// Each leaves a file in /tmp.
TEST_F(PerfMapTest, AGuestThatResetsWithoutEndLeavesFewMaps) {
  const auto path = [&](int i) { return "/tmp/perf-" + std::to_string(pid_ + i) + ".map"; };
  for (int i = 0; i < 20; i++) ASSERT_EQ(map_.begin(log_.get(), pid_ + i), "");
  int left = 0;
  for (int i = 0; i < 20; i++) left += ::access(path(i).c_str(), F_OK) == 0;
  EXPECT_EQ(left, 5) << "the last one and four before it";
  EXPECT_EQ(::access(path(19).c_str(), F_OK), 0);
  for (int i = 0; i < 20; i++) std::remove(path(i).c_str());
}

TEST_F(PerfMapTest, IsNotWrittenThroughALinkOfSomebodyElse) {
  const std::string path = "/tmp/perf-" + std::to_string(pid_) + ".map", target = path + ".target";
  { std::ofstream{target} << "precious"; }
  ASSERT_EQ(::symlink(target.c_str(), path.c_str()), 0);
  ASSERT_EQ(map_.begin(log_.get(), pid_), "");  // the link is replaced
  names_->add(Hva{0x5000}, 16, Gva{0x3000}, 0);
  EXPECT_EQ(map_.update(log_.get(), {}), "");
  std::ifstream in{target};
  EXPECT_EQ((std::string{std::istreambuf_iterator<char>{in}, {}}), "precious");
  std::remove(target.c_str());
}

}  // namespace
}  // namespace trapline::monitor
