#include "monitor/input.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <thread>

namespace trapline::monitor {
namespace {

// Standard input is a pipe of ours meanwhile.
class InputTest : public testing::Test {
 protected:
  InputTest() : before_{::dup(0)} {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    ::dup2(ends[0], 0);
    ::close(ends[0]);
    keys_ = ends[1];
  }
  ~InputTest() override {
    ::close(keys_);
    ::dup2(before_, 0);
    ::close(before_);
  }
  void type(std::string_view text) {
    ASSERT_EQ(::write(keys_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  static bool eventually(const std::atomic<int>& count, int wanted) {
    for (int i = 0; i < 1000 && count != wanted; i++) std::this_thread::sleep_for(std::chrono::milliseconds{10});
    return count == wanted;
  }
  int before_, keys_ = -1;
};

// Each hook takes the input's own lock: it would wait for ever if that were held.
TEST_F(InputTest, HooksAreCalledOutsideOfLocks) {
  std::atomic<int> quits{0}, helps{0}, arrivals{0};
  Input* self = nullptr;
  Input input{true,
              false,
              {.arrived = [&] { self->nudge(), arrivals++; },
               .quit = [&] { self->nudge(), quits++; },
               .help = [&] { self->nudge(), helps++; },
               .failed = [](ExitCode, const std::string& text) { ADD_FAILURE() << text; }}};
  self = &input;
  input.start();
  type("\x01h");
  EXPECT_TRUE(eventually(helps, 1));
  EXPECT_FALSE(input.waiting()) << "nothing of it is for the guest";
  type("a\x01\x01\x01x");
  EXPECT_TRUE(eventually(quits, 1));
  EXPECT_EQ(helps, 1);
  EXPECT_TRUE(input.waiting());
  input.stop();
}

TEST_F(InputTest, LettingGoEndsEveryWaitUntilTakenBack) {
  Input input{false, true, {}};
  input.let_go(true);
  input.wait();
  input.wait();
  input.let_go(false);
  std::atomic<int> done{0};
  std::thread waiter{[&] {
    input.wait();
    done++;
  }};
  std::this_thread::sleep_for(std::chrono::milliseconds{50});
  EXPECT_EQ(done, 0);
  input.let_go(true);
  waiter.join();
  EXPECT_EQ(done, 1);
}

}  // namespace
}  // namespace trapline::monitor
