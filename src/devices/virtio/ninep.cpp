#include "devices/virtio/ninep.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace trapline::devices::virtio {

namespace {

constexpr u64 kMountTag = 1;  // VIRTIO_9P_MOUNT_TAG
constexpr u8 kLerror = 7;     // Rlerror

struct [[gnu::packed]] ErrorReply {
  u32 size = sizeof(ErrorReply);
  u8 type = kLerror;
  u16 tag;
  u32 error;
};
static_assert(sizeof(ErrorReply) == 11);
constexpr std::size_t kHeader = 7, kTagOffset = 5;

}  // namespace

NineP::NineP(std::string tag, MessageServer& server, bool at_once)
    : Backend{{.type = 9, .name = "virtio-9p", .class_code = 0x018000, .features = kMountTag, .queues = {128}}},
      server_{server},
      at_once_{at_once} {
  INVARIANT(tag.size() <= kLongestTag, "a tag of {} bytes", tag.size());
  INVARIANT(server.slots() <= slot_.size(), "{} slots", server.slots());
  config_.length = static_cast<u16>(tag.size());
  std::memcpy(config_.tag, tag.data(), tag.size());
}

void NineP::read_config(u64 offset, std::span<u8> out) const { copy_config(config_, offset, out); }

void NineP::serve(unsigned index) {
  Queue& q = queue(index);
  do {
    q.hush();
    for (;;) {
      const auto slot = take_slot();
      if (!slot) return;
      auto request = q.next();
      if (!request) {
        free(*slot);
        break;
      }
      handle(*slot, std::move(*request));
    }
  } while (q.listen());
}

// Nothing: the machine ends.
std::optional<unsigned> NineP::take_slot() {
  auto slot = free_slot();
  while (!slot && !server_.let_go()) {
    const u32 seen = server_.answers();
    give_late();
    slot = free_slot();
    if (!slot) server_.await_more(seen);
  }
  return slot;
}

// The first: so one thread of the server's does nearly all of the work, and is awake.
std::optional<unsigned> NineP::free_slot() {
  std::lock_guard guard{slots_};
  for (unsigned i = 0; i < server_.slots(); i++) {
    if (slot_[i].state != Slot::State::free || server_.busy(i)) continue;
    slot_[i].state = Slot::State::worker;
    return i;
  }
  return std::nullopt;
}

void NineP::free(unsigned slot) {
  std::lock_guard guard{slots_};
  slot_[slot] = {};
}

void NineP::handle(unsigned slot, Request&& request) {
  const u64 length = request.readable_bytes();
  const std::span<u8> room = server_.room(slot);
  if (length < kHeader || length > room.size() || request.writable_bytes() < sizeof(ErrorReply)) {
    free(slot);
    return queue(0).finish(std::move(request), 0);
  }
  const auto message = room.first(length);
  request.read(0, std::as_writable_bytes(message));
  u16 tag = 0;
  std::memcpy(&tag, message.data() + kTagOffset, sizeof tag);
  server_.post(slot, length, tag);
  if (!server_.await(slot, at_once_)) return leave(slot, std::move(request), tag);
  give_late();
  const std::lock_guard order{order_};
  answer(slot, std::move(request), tag);
}

void NineP::leave(unsigned slot, Request&& request, u16 tag) {
  {
    std::lock_guard guard{slots_};
    Slot& s = slot_[slot];
    // A reset that has begun would wait for it; stop() has been here already, perhaps.
    const bool wanted = queue(0).running();
    s.state = wanted ? Slot::State::late : Slot::State::forgotten;
    s.order = ++posted_;
    s.tag = tag;
    if (wanted) s.request = std::move(request);
    left_++;
  }
  some_late_.notify_one();
  if (server_.answered(slot)) give_late();  // collect() may have looked before
}

void NineP::collect() {
  for (;;) {
    {
      std::unique_lock guard{slots_};
      some_late_.wait(guard, [this] { return closed_ || left_ != 0; });
      if (closed_) return;
    }
    const u32 seen = server_.answers();
    give_late();
    std::unique_lock guard{slots_};
    const bool more = left_ != 0 && !closed_;
    guard.unlock();
    if (more) server_.await_more(seen);
  }
}

void NineP::close(bool on) {
  {
    std::lock_guard guard{slots_};
    closed_ = on;
  }
  some_late_.notify_one();
}

// Slots that are answered, the oldest first.
std::vector<unsigned> NineP::late_answers() {
  std::lock_guard guard{slots_};
  std::vector<unsigned> found;
  for (unsigned i = 0; i < server_.slots(); i++)
    if (slot_[i].state == Slot::State::late && server_.answered(i)) found.push_back(i);
  std::sort(found.begin(), found.end(), [&](unsigned a, unsigned b) { return slot_[a].order < slot_[b].order; });
  return found;
}

void NineP::give_late() {
  const std::lock_guard order{order_};
  // An answer that came before one which we have seen must be seen, too: until two looks find the same.
  auto found = late_answers();
  for (auto again = late_answers(); again != found; again = late_answers()) found = std::move(again);
  for (const unsigned i : found) {
    std::optional<Request> request;
    u16 tag = 0;
    {
      std::lock_guard guard{slots_};
      if (slot_[i].state != Slot::State::late) continue;  // stop() meanwhile
      request = std::exchange(slot_[i].request, std::nullopt);
      slot_[i].state = Slot::State::worker;
      tag = slot_[i].tag;
      left_--;
    }
    answer(i, std::move(*request), tag);
  }
  std::lock_guard guard{slots_};
  for (unsigned i = 0; i < server_.slots(); i++)
    if (slot_[i].state == Slot::State::forgotten && !server_.busy(i)) slot_[i] = {}, left_--;
}

void NineP::answer(unsigned slot, Request&& request, u16 tag) {
  const auto reply = server_.reply(slot);
  u32 written = static_cast<u32>(reply.size());
  if (reply.size() < kHeader || !request.write(0, std::as_bytes(reply))) {
    ErrorReply error;
    error.tag = tag;
    error.error = EIO;
    request.write(0, error);
    written = sizeof error;
  }
  free(slot);
  queue(0).finish(std::move(request), written);
}

// What was copied needs no guest memory: requests go back at once.
void NineP::stop() {
  std::lock_guard guard{slots_};
  for (Slot& s : slot_)
    if (s.state == Slot::State::late) s.request.reset(), s.state = Slot::State::forgotten;
}

void NineP::settle() {
  stop();
  server_.settle();
  std::lock_guard guard{slots_};
  for (Slot& s : slot_) s = {};
  left_ = 0;
}

}  // namespace trapline::devices::virtio
