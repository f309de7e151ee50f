// The debug mailbox from the monitor's side: a gdb::Target over one core after the other (a guest that resets gets a
// new one).
//
// Threads: attach() and detach() are the main thread's, the rest is the server thread's, but for what the watching
// thread asks. `lock_` is held while the channel is used; detach() ends any wait on the core, and the watching thread,
// first.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

#include "channel/channel.h"
#include "monitor/gdb_target.h"
#include "monitor/thread.h"

namespace trapline::monitor::gdb {

class CoreTarget final : public Target {
 public:
  struct Hooks {
    std::function<void()> paused;  // all vCPUs have paused; by a thread of its own
    std::function<void()> nudge;   // make a core that waits for input look up
    std::function<void()> end;     // end the VM
    OnFailure failed;              // of the watching thread
  };
  explicit CoreTarget(Hooks hooks) : hooks_{std::move(hooks)} {}
  ~CoreTarget() override { detach(); }

  // Before the core starts. `pause`: no vCPU runs before a resume. Throws HostRefused.
  void attach(channel::Channel& channel, bool pause);
  void detach();
  void set_listening(bool listening);  // there is a client to hear of crashes

  bool paused();                    // all of them, as the mailbox says
  std::optional<Stop> take_stop();  // once per pause

  u32 vcpus() const override { return vcpus_; }
  bool read_registers(u32 vcpu, channel::DebugRegisters& out) override;
  bool write_registers(u32 vcpu, const channel::DebugRegisters& in) override;
  std::size_t read_memory(u32 vcpu, Gva address, std::span<u8> out) override;
  std::size_t write_memory(u32 vcpu, Gva address, std::span<const u8> in) override;
  std::optional<Gpa> translate(u32 vcpu, Gva address) override;
  void set_stops(const std::vector<channel::DebugStop>& stops) override;
  void resume(u64 run_mask, u64 step_mask, bool step_interrupts) override;
  void interrupt() override;
  void end() override { hooks_.end(); }

 private:
  channel::DebugMailbox& mailbox() { return channel_->vm().debug; }
  u64 all() const { return vcpus_ >= 64 ? ~u64{0} : (u64{1} << vcpus_) - 1; }
  bool all_paused() { return channel_ && (mailbox().paused.load(std::memory_order_acquire) & all()) == all(); }
  u32 tell(channel::DebugCommand command, u32 vcpu);
  bool perform(channel::DebugCommand command, u32 vcpu, Gva address = {}, u32 length = 0);
  void write_stops();
  bool to_be_told();
  void watch(channel::DebugMailbox& mailbox);

  Hooks hooks_;
  std::mutex lock_;
  channel::Channel* channel_ = nullptr;  // null: no core
  std::atomic<u32> vcpus_{1};  // the server's thread asks without the lock while attach() takes the next core over
  u32 number_ = 0;
  std::vector<channel::DebugStop> stops_;
  bool stops_changed_ = false, listening_ = false;
  bool asked_ = false;  // interrupt() has not been followed yet: the next core inherits it
  std::atomic<bool> gone_{true};
  bool told_ = false;   // the present pause has been announced
  bool taken_ = false;  // and taken
  std::thread watcher_;
};

}  // namespace trapline::monitor::gdb
