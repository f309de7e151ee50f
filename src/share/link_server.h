// Answers the requests of a link, each slot's on a thread of its own, and sees to it that a Tflush is answered after
// what it names: all that was posted before it with that tag.
#pragma once

#include "channel/share_link.h"
#include "share/server.h"

namespace trapline::share {

class LinkServer {
 public:
  LinkServer(channel::ShareLink& link, Server& server) : link_{link}, server_{server} {}
  // The slot's thread. `patience`: how long it polls for the next request.
  [[noreturn]] void run(unsigned slot, channel::Patience patience);
  // The request that is there.
  void answer(unsigned slot);

 private:
  void await_flushed(const channel::ShareSlot& flush, u16 tag);

  channel::ShareLink& link_;
  Server& server_;
};

}  // namespace trapline::share
