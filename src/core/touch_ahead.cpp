#include "core/touch_ahead.h"

#include <sys/resource.h>
#include <unistd.h>

#include <thread>

#include "base/touch_ahead.h"
#include "channel/futex.h"
#include "core/finish.h"

namespace trapline::core {

void TouchRequests::put(Request request) {
  const u64 units = std::min<u64>((request.at % kUnit + request.bytes + kUnit - 1) / kUnit, 0xffff);
  slots_[next_.fetch_add(1, std::memory_order_relaxed) % slots_.size()].store(request.at / kUnit | units << 40);
  bell_.fetch_add(1);
}

bool TouchRequests::take(Request& request) {
  for (auto& slot : slots_) {
    if (slot.load(std::memory_order_relaxed) == 0) continue;
    const u64 word = slot.exchange(0);
    request = {(word & ((u64{1} << 40) - 1)) * kUnit, (word >> 40) * kUnit};
    return true;
  }
  return false;
}

void start_touching_ahead() {
  static TouchRequests requests;
  static std::atomic<u32> ready{0};  // a thread that is still being made does what the sandbox forbids
  std::thread{[] {
    install_alternate_stack();
    // Only what nobody else needs: a core that polls for its cage would answer milliseconds late.
    static_cast<void>(::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 19));
    ready.store(1);
    channel::futex_wake(ready);
    for (;;) {
      const u32 seen = requests.bell().load();
      for (TouchRequests::Request r; requests.take(r);) serve_touch(r.at, r.bytes);
      channel::futex_wait(requests.bell(), seen);
    }
  }}.detach();
  while (ready.load() == 0) channel::futex_wait(ready, 0);
  set_touch_ahead([](u64 at, u64 bytes) {
    requests.put({at, bytes});
    channel::futex_wake(requests.bell());
  });
}

}  // namespace trapline::core
