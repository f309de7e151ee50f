#include "share/link_server.h"

#include <algorithm>

namespace trapline::share {

using channel::ShareSlot;
using channel::ShareTurn;

namespace {

// The tag that a Tflush names. Nothing: it is no Tflush.
std::optional<u16> flushed(std::span<const u8> request) {
  Reader in{request};
  in.word();
  const u8 type = in.byte();
  in.half();
  const u16 tag = in.half();
  if (!in.complete() || type != static_cast<u8>(Message::flush)) return std::nullopt;
  return tag;
}

}  // namespace

void LinkServer::run(unsigned index, channel::Patience patience) {
  ShareSlot& slot = link_.slots[index];
  for (;;) {
    const ShareTurn now = slot.turn.get();
    if (now == ShareTurn::requested)
      answer(index);
    else if (!patience.wait([&] { return slot.turn.get() != now; }))
      slot.turn.sleep(now, ~u64{0});
  }
}

void LinkServer::answer(unsigned index) {
  ShareSlot& slot = link_.slots[index];
  const std::span request{slot.request, std::min<std::size_t>(slot.request_length, channel::kShareMessage)};
  if (const auto tag = flushed(request)) await_flushed(slot, *tag);
  slot.reply_length = static_cast<u32>(server_.serve(request, {slot.reply, channel::kShareMessage}));
  slot.turn.set(ShareTurn::replied);
  link_.answers.add();
}

// Nobody waits in a ring: only for what is older.
void LinkServer::await_flushed(const ShareSlot& flush, u16 tag) {
  const u64 own = flush.order;
  for (ShareSlot& slot : link_.slots) {
    const u64 order = slot.order;
    if (order >= own || slot.tag != tag) continue;
    while (slot.turn.get() == ShareTurn::requested && slot.order == order)
      slot.turn.sleep(ShareTurn::requested, ~u64{0});
  }
}

}  // namespace trapline::share
