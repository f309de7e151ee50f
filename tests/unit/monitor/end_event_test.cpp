#include "monitor/end_event.h"

#include <gtest/gtest.h>
#include <poll.h>

namespace trapline::monitor {
namespace {

bool readable(const EndEvent& event) {
  pollfd p{event.fd(), POLLIN, 0};
  return ::poll(&p, 1, 0) == 1;
}

TEST(EndEvent, TheFirstReasonCounts) {
  EndEvent event;
  EXPECT_FALSE(readable(event));
  EXPECT_TRUE(event.post(End::power_off));
  EXPECT_FALSE(event.post(End::signal, 15));
  EXPECT_FALSE(event.post(End::core_gone));
  EXPECT_EQ(event.get()->end, End::power_off);
  EXPECT_TRUE(readable(event));
}

TEST(EndEvent, AResetGivesWayToWhatEndsTheVm) {
  for (const End end : {End::power_off, End::debug_exit, End::quit, End::console_lost, End::timeout, End::signal}) {
    EndEvent event;
    EXPECT_TRUE(event.post(End::reset));
    EXPECT_FALSE(event.post(End::reset));
    EXPECT_TRUE(event.post(end, 3));
    EXPECT_EQ(event.get()->end, end);
  }
}

// The core leaves because of the reset. Its SIGCHLD may be seen before the reset is.
TEST(EndEvent, AResetDoesNotGiveWayToTheEndOfTheCoreThatItCauses) {
  EndEvent event;
  event.post(End::reset);
  EXPECT_FALSE(event.post(End::core_gone));
  EXPECT_EQ(event.get()->end, End::reset);
  EXPECT_TRUE(event.take_reset());
  EXPECT_FALSE(event.get());
  EXPECT_FALSE(readable(event));
  EXPECT_TRUE(event.post(End::core_gone));
}

// Ctrl-A X between two lives of a guest that resets.
TEST(EndEvent, WhatOvertakesAResetIsNotForgottenWithIt) {
  EndEvent event;
  EXPECT_FALSE(event.take_reset()) << "there was none";
  event.post(End::reset);
  event.post(End::quit);
  EXPECT_FALSE(event.take_reset());
  EXPECT_EQ(event.get()->end, End::quit);
  EXPECT_TRUE(readable(event));
}

TEST(EndEvent, AFailureHasItsCodeAndText) {
  EndEvent event;
  event.post(End::failed, 7, "no thread");
  EXPECT_EQ(event.get()->value, 7u);
  EXPECT_EQ(event.get()->text, "no thread");
}

}  // namespace
}  // namespace trapline::monitor
