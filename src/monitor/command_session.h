// The host's side of a command in a VM (`trapline exec`; src/agent/ is the other): its streams from and to this
// process's own, its signals, its end. The other side is a guest: whatever it sends, it can do no more than write to
// the two outputs and end the VM.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/protocol.h"
#include "devices/virtio/console.h"
#include "monitor/end_event.h"
#include "monitor/event.h"

namespace trapline::monitor {

class CommandSession final : public devices::virtio::PortEnd {
 public:
  // Both outlive it. `hurry`: nobody waits for slow readers any more.
  CommandSession(EndEvent& end, const Event& hurry) : end_{end}, hurry_{hurry} {}
  ~CommandSession() override { stop(); }

  void attach(devices::virtio::Console& console) { console_ = &console; }
  void start();  // its threads; throws HostRefused
  void stop();

  // Any thread. False: there is no command yet, or no more.
  bool signal(int number);
  void resize();  // this process's terminal has another size

  // -- PortEnd
  void received(std::span<const std::byte> bytes) override;
  void may_send() override;

 private:
  // An output: what has come for it, written by a thread of its own.
  struct Output {
    int fd;
    std::deque<std::vector<char>> waiting;
    std::size_t bytes = 0;  // in it, and being written
    bool lost = false;      // nobody reads it any more
    std::condition_variable changed;
    std::thread thread;
  };
  enum class State : u8 { booting, running, finished };

  void obey(const agent::Header& header, const char* payload);
  void take(agent::Stream stream, const char* data, std::size_t count);
  void write_loop(Output& output, agent::Stream stream);
  void read_loop();
  bool conclude();  // under the lock: all is written, and the VM may end
  void nonsense(const char* what);
  // Under the lock.
  void put(agent::Kind kind, agent::Stream stream, const void* payload, u32 length);
  void send_waiting();

  EndEvent& end_;
  const Event& hurry_;
  devices::virtio::Console* console_ = nullptr;
  std::mutex lock_;  // around what follows
  State state_ = State::booting;
  agent::Finished finished_{};
  bool stopping_ = false;
  Output outputs_[2] = {{1, {}, 0, false, {}, {}}, {2, {}, 0, false, {}, {}}};
  std::vector<u8> to_guest_;
  u32 input_on_the_way_ = 0;
  std::condition_variable input_room_;
  Event wake_;  // the input thread: it stops
  std::thread input_thread_;

  std::vector<char> from_guest_;  // the worker's
};

}  // namespace trapline::monitor
