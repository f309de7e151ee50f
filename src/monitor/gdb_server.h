// --gdb: the socket, the thread that serves it, and what a VM does with and without a client.
//
// A client that connects stops the VM. One that detaches lets it run on; one that vanishes leaves it as it is, without
// its breakpoints. One client at a time: the next waits in the listen queue.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "base/result.h"
#include "monitor/event.h"
#include "monitor/files.h"
#include "monitor/gdb_core.h"
#include "monitor/gdb_stub.h"
#include "monitor/thread.h"

namespace trapline::monitor::gdb {

// A listening socket on 127.0.0.1, or of that path, which only this user may connect to (mode 600). Error: one line for
// the user.
Result<Fd, VmError> listen_on_loopback(u16 port);
Result<Fd, VmError> listen_on_path(const std::string& path);
// Removes the socket's name again, if it is still ours. Any thread; also when nothing listens.
void forget_path();

class Server {
 public:
  struct Hooks {
    std::function<void()> nudge, end;  // as in CoreTarget
    OnFailure failed;                  // of the threads
  };
  // `wait`: the first core does not run before a client says so. Serves from here on, on a thread of its own. Throws
  // HostRefused.
  Server(Fd listener, bool wait, Hooks hooks);
  ~Server();
  Server(const Server&) = delete;

  // Around each core's life, on the main thread.
  void core_starting(channel::Channel& channel);
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

  Fd listener_, client_;
  monitor::Event event_;
  OnFailure failed_;
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
