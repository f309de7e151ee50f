// A process that serves one shared folder (src/share/), as the monitor handles it: started from the monitor's own
// executable with nothing but the folder, asked one request at a time, killed in any case.
#pragma once

#include <sys/types.h>

#include <span>
#include <string>

#include "base/result.h"
#include "channel/share_link.h"
#include "devices/virtio/ninep.h"
#include "monitor/files.h"

namespace trapline::monitor {

class ShareProcess final : public devices::virtio::MessageServer {
 public:
  ShareProcess() = default;
  ~ShareProcess() override;
  ShareProcess(const ShareProcess&) = delete;

  // By a thread that lives as long as the process shall.
  Result<void, VmError> start(const std::string& folder, bool readonly);
  // Once the process is closed in. Before the first request.
  Result<void, VmError> await_ready();

  // -- By one thread at a time. Nothing of a reply is believed; it is cut short once let_go() has been called.
  std::span<u8> room() override { return {link_->request, channel::kShareMessage}; }
  std::span<const u8> ask(std::size_t length) override;
  void settle() override;

  // Any thread: nobody waits for a slow disk any more, or does so again.
  void let_go(bool on) { letting_go_ = on; }

 private:
  bool wait();  // false: it is gone
  bool gone() const;

  std::string folder_;
  channel::ShareLink* link_ = nullptr;
  channel::Patience patience_{0};
  std::atomic<bool> letting_go_{false};
  pid_t pid_ = -1;
  Fd lifeline_;  // a socket, whose other end the process holds
};

}  // namespace trapline::monitor
