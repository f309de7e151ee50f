// A process that serves one shared folder (src/share/), as the monitor handles it: started from the monitor's own
// executable with nothing but the folder, asked by slots of shared memory, killed in any case.
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

  // -- Nothing of a reply is believed. await(): one thread.
  unsigned slots() const override { return channel::kShareSlots; }
  std::span<u8> room(unsigned slot) override { return {link_->slots[slot].request, channel::kShareMessage}; }
  void post(unsigned slot, std::size_t length, u16 tag) override;
  bool busy(unsigned slot) const override;
  bool answered(unsigned slot) const override { return letting_go_ || !busy(slot); }
  bool await(unsigned slot, bool as_long_as_it_takes) override;
  std::span<const u8> reply(unsigned slot) override;
  u32 answers() const override { return link_->answers.get(); }
  void await_more(u32 seen) override;
  bool let_go() const override { return letting_go_; }
  void settle() override;

  // Any thread: nobody waits for a slow disk any more, or does so again.
  void let_go(bool on);

 private:
  bool gone();

  std::string folder_;
  channel::ShareLink* link_ = nullptr;
  channel::Patience patience_{0};
  std::atomic<bool> letting_go_{false}, gone_{false};
  u64 posted_ = 0;
  pid_t pid_ = -1;
  Fd lifeline_;  // a socket, whose other end the process holds
};

}  // namespace trapline::monitor
