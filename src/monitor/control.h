// Requests to a VM that runs, from other processes of the same user: a socket beside its name in the registry's folder
// (0700). A client sends one line and gets one; several come after each other.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "base/result.h"
#include "monitor/event.h"
#include "monitor/registry.h"
#include "monitor/thread.h"

namespace trapline::monitor {

class ControlSocket {
 public:
  // Called on a confined thread of its own (thread.h); the line that it returns goes to the client.
  using Answer = std::function<std::string(std::string_view request)>;
  // Of the VM `name`. Where there is no socket to be had nobody can ask: no error.
  ControlSocket(const Registry& registry, const std::string& name, Answer answer, OnFailure failed);
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;

 private:
  void serve();
  void serve_client(const Fd& client);

  Answer answer_;
  Fd folder_, listener_;
  std::string file_;
  Event end_;
  std::thread thread_;
};

// What the VM answers. Error: one line.
Result<std::string, VmError> ask_vm(const Registry& registry, const std::string& name, const std::string& request);

}  // namespace trapline::monitor
