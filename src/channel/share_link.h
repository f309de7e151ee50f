// What the monitor and the process that serves a shared folder (src/share/) have in common: one memfd with room for a
// request and its reply. One request at a time: the monitor fills `request` and sets `turn`, the server answers into
// `reply`. The monitor believes nothing of what it reads here but bytes to hand to the guest.
#pragma once

#include <atomic>

#include "base/types.h"
#include "channel/futex.h"
#include "channel/spin.h"

namespace trapline::channel {

// trapline __share LINK_FD FOLDER_FD rw|ro
inline constexpr const char* kShareCommand = "__share";

inline constexpr u32 kShareMessage = 512 * KiB;  // the longest message, both ways

enum class ShareTurn : u32 { starting, idle, requested, replied, refused };

struct ShareLink {
  std::atomic<ShareTurn> turn{ShareTurn::starting};
  std::atomic<u32> sleepers{0};  // who may sleep on `turn`
  u32 request_length = 0, reply_length = 0;
  char why[240] = {};  // `refused`: a line of text, ended by a zero
  alignas(kPageSize) u8 request[kShareMessage];
  alignas(kPageSize) u8 reply[kShareMessage];

  void set(ShareTurn next) {
    turn.store(next);
    if (sleepers.load() != 0) futex_wake(word(), 2);
  }
  // Until `turn` is something else than `now`, or the time is up, or for no reason.
  void sleep(ShareTurn now, u64 timeout_ns) {
    sleepers.fetch_add(1);
    futex_wait(word(), static_cast<u32>(now), timeout_ns);
    sleepers.fetch_sub(1);
  }

 private:
  std::atomic<u32>& word() { return reinterpret_cast<std::atomic<u32>&>(turn); }
};

}  // namespace trapline::channel
