// How often a guest may start over. Each start is a new process with fresh RAM: a guest that resets at once must not
// keep the host busy with that, nor for ever.
#pragma once

#include <chrono>

namespace trapline::monitor {

class ResetLimit {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kLeastLife{100};  // from one start to the next
  static constexpr std::chrono::seconds kShortLife{1};
  static constexpr int kMostShortLives = 1000;  // in a row

  void started(Clock::time_point now) { start_ = now; }
  // The guest has reset. How long to wait before it starts again.
  Clock::duration reset(Clock::time_point now) {
    const auto life = now - start_;
    short_lives_ = life < kShortLife ? short_lives_ + 1 : 0;
    return life < kLeastLife ? kLeastLife - life : Clock::duration{0};
  }
  bool exceeded() const { return short_lives_ >= kMostShortLives; }

 private:
  Clock::time_point start_{};
  int short_lives_ = 0;
};

}  // namespace trapline::monitor
