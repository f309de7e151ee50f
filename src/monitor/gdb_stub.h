// The remote protocol's server side for one connection, without sockets: bytes and stops in, bytes out.
//
// All-stop: either the whole VM is paused and the client asks, or it runs and the client waits for a stop reply. A
// thread is a vCPU, numbered from 1. GDB manual, appendix E; x86 target features: G.5.14.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "monitor/gdb_packet.h"
#include "monitor/gdb_registers.h"
#include "monitor/gdb_target.h"

namespace trapline::monitor::gdb {

// Of error replies. Linux errno values by convention; GDB shows the number.
inline constexpr int kNotFound = 2, kBadAddress = 14, kInvalid = 22, kNoSpace = 28, kReadOnly = 30;

// "addr,length": what m, M, X and Z begin with, and qXfer.
inline bool take_range(std::string_view& text, u64& start, u64& length) {
  const auto a = take_number(text);
  if (!a || !take_char(text, ',')) return false;
  const auto n = take_number(text);
  if (!n) return false;
  start = *a, length = *n;
  return true;
}

// What outlives a connection.
struct Settings {
  enum class Description : u8 { automatic, bits32, bits64 };
  Description description = Description::automatic;
  bool step_interrupts = false;
};

class Stub {
 public:
  using Send = std::function<void(std::string_view bytes)>;

  // The VM is paused; `why` is the first stop.
  Stub(Target& target, Settings& settings, const Stop& why, Send send);

  void receive(std::span<const u8> bytes);
  void stopped(const Stop& stop);    // the VM has paused
  void ended(int code, int signal);  // the VM is gone: its exit code, or (not 0) the signal that ended it

  bool running() const { return running_; }
  bool closed() const { return closed_; }  // detached or killed: hang up

 private:
  struct Point {  // a Z packet
    char type;
    Gva address;
    u64 length;
    bool operator==(const Point&) const = default;
  };

  void handle(const Event& event);
  void dispatch(std::string_view packet);
  void reply(std::string_view payload);
  void ok() { reply("OK"); }
  void error(int number);

  void query(std::string_view packet);
  void set(std::string_view packet);
  void verbose(std::string_view packet);
  void feature_list(std::string_view packet);
  void read_description(std::string_view request);
  void thread_list();
  void thread_info(std::string_view id);
  void command(std::string_view hex);

  void choose_thread(std::string_view arguments);
  std::optional<u32> vcpu_of(std::string_view id) const;  // a single one
  void read_register(std::string_view arguments);
  void write_register(std::string_view arguments);
  void write_all_registers(std::string_view arguments);
  void read_memory(std::string_view arguments);
  void write_memory(std::string_view arguments, bool binary);
  void change_point(bool insert, std::string_view arguments);
  void go(std::string_view packet);             // c C s S
  void go_by_thread(std::string_view actions);  // vCont
  void resume(u64 run_mask, u64 step_mask);
  void detach();
  void kill();

  void choose_layout();
  std::string stop_reply();
  std::string stop_reason();
  bool has_point(char type, Gva address) const;
  void publish_points();
  u64 everyone() const { return target_.vcpus() >= 64 ? ~u64{0} : (u64{1} << target_.vcpus()) - 1; }

  Target& target_;
  Settings& settings_;
  Send send_;
  PacketReader reader_;
  const RegisterLayout* layout_ = nullptr;
  Stop stop_;
  bool interrupted_ = false;  // the client asked for this stop
  bool acknowledge_ = true, running_ = false, closed_ = false;
  bool tells_swbreak_ = false, tells_hwbreak_ = false;
  u32 current_ = 0;            // vCPU that registers and memory are of (Hg)
  std::optional<u32> to_run_;  // of c and s (Hc); nothing: all
  std::vector<Point> points_;
  std::string last_;  // for a client that has not understood
};

// monitor COMMAND, and what it prints (gdb_commands.cpp).
std::string run_command(std::string_view text, Target& target, u32 vcpu, Settings& settings);
// "vCPU 0: 64-bit mode, ring 3, halted"
std::string describe_vcpu(const channel::DebugRegisters& r, u32 vcpu);

}  // namespace trapline::monitor::gdb
