// --gdb: the socket, the thread that serves it, and what a VM does with and without a client.
//
// A client that connects stops the VM. One that detaches lets it run on; one that vanishes leaves it as it is, without
// its breakpoints. One client at a time: the next waits in the listen queue.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "base/result.h"
#include "monitor/files.h"
#include "monitor/gdb_core.h"
#include "monitor/gdb_stub.h"

namespace trapline::monitor::gdb {

// A listening socket on 127.0.0.1. Error: one line for the user.
Result<Fd, std::string> listen_on_loopback(u16 port);

class Server {
 public:
  struct Hooks {
    std::function<void()> nudge, end;  // as in CoreTarget
  };
  // `wait`: the first core does not run before a client says so. Serves from here on, on a thread of its own.
  Server(Fd listener, bool wait, Hooks hooks);
  ~Server();
  Server(const Server&) = delete;

  // Around each core's life, on the main thread.
  void core_starting(core::Channel& channel);
  void core_ended() { target_.detach(); }
  // The VM is over: tells the client, hangs up, ends the thread.
  void finish(int code, int signal);

 private:
  void serve();
  void accept_client();
  void read_client();
  void on_pause();
  void start_session(const Stop& stop);
  void hang_up();
  void say_goodbye();
  void wake();
  void resume_all() { target_.resume(~u64{0}, 0, false); }

  Fd listener_, client_, event_;
  CoreTarget target_;
  Settings settings_;
  std::unique_ptr<Stub> stub_;  // from the client's first stop on
  bool hold_;                   // paused with no client: stay so
  bool send_failed_ = false;
  std::atomic<bool> ending_{false};
  int code_ = 0, signal_ = 0;    // before `ending_`
  bool started_ = false, wait_;  // main thread's
  std::thread thread_;
};

}  // namespace trapline::monitor::gdb
