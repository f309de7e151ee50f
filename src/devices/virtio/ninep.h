// virtio-9p (VIRTIO 1.2 names it, the layout is Linux's, include/uapi/linux/virtio_9p.h): messages of 9P in requests,
// each copied to a server and its answer copied back. What they mean is the server's business.
//
// Most answers come within microseconds: the worker waits a moment for each. A request that takes longer is left to
// collect(), a thread of the device's own, and the worker goes on to the next one. Answers reach the driver in the order
// in which the server gave them, as far as it matters: whoever is told of an answer has been told of all before it.
#pragma once

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "devices/virtio/device.h"

namespace trapline::devices::virtio {

// The other side: as many requests at a time as it has slots. Any thread, each slot by one at a time.
struct MessageServer {
  virtual ~MessageServer() = default;
  virtual unsigned slots() const = 0;  // at most kMostSlots
  static constexpr unsigned kMostSlots = 32;
  // Where a request goes before post().
  virtual std::span<u8> room(unsigned slot) = 0;
  virtual void post(unsigned slot, std::size_t length, u16 tag) = 0;
  // The server works on it, or may still do so.
  virtual bool busy(unsigned slot) const = 0;
  // There is an answer, or there will be none.
  virtual bool answered(unsigned slot) const = 0;
  // Waits for that: for as long as it takes, or a moment.
  virtual bool await(unsigned slot, bool as_long_as_it_takes) = 0;
  // Empty: there is none, for the server is gone.
  virtual std::span<const u8> reply(unsigned slot) = 0;
  // Moves with each answer; await_more() returns when it has, or after a time.
  virtual u32 answers() const = 0;
  virtual void await_more(u32 seen) = 0;
  // Nobody waits for answers any more.
  virtual bool let_go() const = 0;
  // Returns when it is busy no more.
  virtual void settle() = 0;
};

class NineP final : public Backend {
 public:
  // `server` outlives the device. `tag` is what the driver mounts; at most kLongestTag bytes. `at_once`: each request is
  // waited for, and nobody need call collect().
  NineP(std::string tag, MessageServer& server, bool at_once = false);
  static constexpr std::size_t kLongestTag = 31;

  void read_config(u64 offset, std::span<u8> out) const override;
  void stop() override;
  void serve(unsigned queue) override;
  void settle() override;

  // The thread that answers what takes long, until close(true).
  void collect();
  void close(bool on);

 private:
  struct Slot {
    // worker: it is serve()'s. late: `request` waits for an answer. forgotten: nobody does, but the server works on it.
    enum class State : u8 { free, worker, late, forgotten } state = State::free;
    std::optional<Request> request;
    u16 tag = 0;
    u64 order = 0;
  };
  std::optional<unsigned> take_slot();
  std::optional<unsigned> free_slot();
  void free(unsigned slot);
  void handle(unsigned slot, Request&& request);
  void leave(unsigned slot, Request&& request, u16 tag);
  std::vector<unsigned> late_answers();
  void give_late();
  void answer(unsigned slot, Request&& request, u16 tag);

  MessageServer& server_;
  const bool at_once_;
  struct Config {
    u16 length;
    char tag[kLongestTag + 1];
  } config_{};

  std::mutex order_;  // held while answers are given, before slots_; never by stop()
  std::mutex slots_;  // all that follows
  std::condition_variable some_late_;
  std::array<Slot, MessageServer::kMostSlots> slot_;
  u64 posted_ = 0;
  unsigned left_ = 0;  // slots that are late or forgotten
  bool closed_ = false;
};

}  // namespace trapline::devices::virtio
