// What the monitor and the process that serves a shared folder (src/share/) have in common: one memfd with slots, each
// with room for a request and its reply. The monitor fills a slot's `request` and sets its `turn`, a thread of the
// server answers into its `reply`. The monitor believes nothing of what it reads here but bytes to hand to the guest.
#pragma once

#include <array>
#include <atomic>
#include <climits>

#include "base/types.h"
#include "channel/futex.h"
#include "channel/spin.h"

namespace trapline::channel {

// trapline __share LINK_FD FOLDER_FD rw|ro
inline constexpr const char* kShareCommand = "__share";

inline constexpr u32 kShareMessage = 512 * KiB;  // the longest message, both ways
inline constexpr unsigned kShareSlots = 16;

enum class ShareTurn : u32 { idle, requested, replied };
enum class ShareState : u32 { starting, ready, refused };

// A word that one side changes and others, perhaps of another process, sleep on.
template <class Value>
class SharedWord {
 public:
  Value get() const { return value_.load(std::memory_order_acquire); }
  void set(Value next) {
    value_.store(next);
    wake();
  }
  void wake() {
    if (sleepers_.load() != 0) futex_wake(word(), INT_MAX);
  }
  // Until it is something else than `now`, or the time is up, or for no reason.
  void sleep(Value now, u64 timeout_ns) {
    sleepers_.fetch_add(1);
    futex_wait(word(), static_cast<u32>(now), timeout_ns);
    sleepers_.fetch_sub(1);
  }

 protected:
  std::atomic<u32>& word() { return reinterpret_cast<std::atomic<u32>&>(value_); }
  std::atomic<Value> value_{};
  std::atomic<u32> sleepers_{0};
};

class SharedCount : public SharedWord<u32> {
 public:
  void add() {
    value_.fetch_add(1);
    wake();
  }
};

struct ShareSlot {
  SharedWord<ShareTurn> turn;
  // Of the request: its place among all (what was posted first has the smaller number), and its tag.
  std::atomic<u64> order{0};
  std::atomic<u32> tag{0};
  u32 request_length = 0, reply_length = 0;
  alignas(kPageSize) u8 request[kShareMessage];
  alignas(kPageSize) u8 reply[kShareMessage];
};

struct ShareLink {
  SharedWord<ShareState> state;
  char why[240] = {};   // `refused`: a line of text, ended by a zero
  SharedCount answers;  // moves after each reply
  std::array<ShareSlot, kShareSlots> slots;
};

}  // namespace trapline::channel
