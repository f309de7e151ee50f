// Standard input on its way to the guest's serial port: bytes wait here until the UART has room.
//
// A thread reads terminals and pipes. Under --clock instructions everything that cannot block (files, /dev/null) is
// read exactly when the guest has room for it, so that two runs see the same bytes at the same instruction.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "base/types.h"
#include "machine/chipset.h"
#include "monitor/event.h"
#include "monitor/thread.h"

namespace trapline::monitor {

class Input {
 public:
  struct Hooks {
    std::function<void()> arrived;  // bytes are waiting: feed them
    std::function<void()> quit;     // Ctrl-A X
    std::function<void()> help;     // Ctrl-A H
    OnFailure failed;               // of the reading thread
  };
  // Hooks are called without any lock of this class.
  Input(bool terminal, bool deterministic, Hooks hooks);
  ~Input() { stop(); }
  Input(const Input&) = delete;

  void start();  // the reading thread, if this input needs one
  void stop();

  // Moves waiting bytes into the UART; the caller holds the machine's lock.
  void feed(machine::Chipset& chipset);
  bool waiting() const { return count_.load(std::memory_order_relaxed) != 0; }
  // Blocks until bytes wait, stop() was called, nudge() was since the last time, or nobody is to wait (let_go).
  void wait();
  void nudge();
  void let_go(bool on);  // a core that has gone needs no input, and its service thread is to end

 private:
  void read_loop();
  void accept(const u8* bytes, std::size_t count);
  enum class Key : u8 { guest, none, quit, help };  // what a byte is for
  Key key(u8 byte);
  void refill();

  const bool terminal_;
  bool synchronous_ = false, at_end_ = false, escaped_ = false;
  Hooks hooks_;
  Event wake_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<u8> queue_;
  std::atomic<std::size_t> count_{0};
  bool stopping_ = false, nudged_ = false, let_go_ = false;
};

}  // namespace trapline::monitor
