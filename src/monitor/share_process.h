// A process that serves one shared folder (src/share/), as the monitor handles it: started from the monitor's own
// executable with nothing but the folder, asked one request at a time, killed in any case.
#pragma once

#include <sys/types.h>

#include <span>
#include <string>

#include "base/result.h"
#include "channel/share_link.h"
#include "monitor/files.h"

namespace trapline::monitor {

class ShareProcess {
 public:
  ShareProcess() = default;
  ~ShareProcess();
  ShareProcess(const ShareProcess&) = delete;

  // By a thread that lives as long as the process shall. Returns once the process is closed in. An error is one line
  // that names the folder and the remedy.
  Result<void, std::string> start(const std::string& folder, bool readonly);

  // -- By one thread at a time.
  // Room for a request; what is there once ask() has been told its length; the reply's bytes, of which nothing is
  // believed. Empty: the process is gone, or gave no answer before `closing`.
  std::span<u8> room() { return {link_->request, channel::kShareMessage}; }
  template <class GiveUp>
  std::span<const u8> ask(std::size_t length, GiveUp closing) {
    send(length);
    while (!answered())
      if (closing() || !wait()) return {};
    return reply();
  }
  // An answer that nobody waited for has come; false: the process is gone.
  bool settle();
  pid_t pid() const { return pid_; }

 private:
  void send(std::size_t length);
  bool answered() const;
  bool wait();  // false: it is gone
  std::span<const u8> reply() const;
  bool gone() const;

  channel::ShareLink* link_ = nullptr;
  channel::Patience patience_{0};
  pid_t pid_ = -1;
  Fd lifeline_;  // a socket, whose other end the process holds
};

}  // namespace trapline::monitor
