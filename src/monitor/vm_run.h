// What is behind a Vm: its parts, and its life on a thread of its own (watch.h). It starts the core and the threads that
// serve it, sleeps until something ends the VM, takes all down again in reverse order, and says what happened. A reset
// is the same once more with the same files.
//
// vm_open.cpp opens what the configuration names, vm_power.cpp makes channel, RAM and core, vm_run.cpp is the life,
// vm_words.cpp what the user is told besides, vm.cpp what is asked from outside.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "monitor/control.h"
#include "monitor/core_process.h"
#include "monitor/gdb_server.h"
#include "monitor/images.h"
#include "monitor/machine_state.h"
#include "monitor/perf_map.h"
#include "monitor/registry.h"
#include "monitor/reset_limit.h"
#include "monitor/symbols.h"
#include "monitor/terminal.h"
#include "monitor/vm.h"
#include "monitor/vm_error.h"
#include "monitor/watch.h"

namespace trapline::monitor {

class VmRun {
 public:
  VmRun(const machine::Config& config, Speaker speaker);
  ~VmRun();
  int run();
  VmState state() const { return state_.load(std::memory_order_acquire); }
  Result<Answer, ActionError> act(const Action& what);

 private:
  using Clock = std::chrono::steady_clock;

  // -- vm.cpp
  bool change(VmState from, VmState to);
  Result<Answer, ActionError> pause();
  Result<Answer, ActionError> resume();
  Result<Answer, ActionError> press_power_button();
  Result<Answer, ActionError> set_balloon(u64 bytes);
  Result<Answer, ActionError> query_balloon() const;
  Result<devices::virtio::Balloon*, ActionError> balloon() const;
  std::string answer(std::string_view request);
  std::optional<std::chrono::seconds> pass_on(int signal);

  // -- vm_open.cpp
  Result<void, VmError> open();
  Result<void, VmError> open_debugger();
  Result<void, VmError> open_storage(std::vector<OpenDisk>* disks, BoardParts* board);
  Result<void, VmError> open_networks(std::vector<OpenNetwork>* networks);
  Result<void, VmError> enter_registry();
  Result<void, VmError> start_attachments();
  Result<void, VmError> shares_ready();
  int console_fd() const;

  // -- vm_run.cpp
  int live();
  int run_machine();
  void lives();
  bool starts_over();
  void start_control();
  void start_input();
  void start_service();
  void await_end();
  void stop_core();
  void stop_service();
  int code_of_command(int code);

  // -- vm_power.cpp
  Result<void, VmError> power_on();
  Result<channel::Launch, VmError> launch_for(int ram_fd, int code_fd, int devices_fd, CodeLines* code_lines);
  Result<void, VmError> start_core(const channel::Launch& launch);
  void publish_clock();

  // -- vm_words.cpp
  void complain(const std::string& text) { speaker_.line(text, hurry_.fd()); }
  void complain_if(const std::string& text) {
    if (!text.empty()) complain(text);
  }
  int fail(const VmError& error) {
    complain(speaker_.words(error));
    return static_cast<int>(error.code());
  }
  void fail_running(const VmError& error) { machine_->fail(error.code(), speaker_.words(error)); }
  void give_hint();
  void collect_stats();
  void complain_of_trace();
  void update_perf_map();
  void report_executed();
  void report_verified();
  void report_figures();
  void report_all(int code);
  void start_debugger();
  void end_debugger(int code);
  Symbols symbols() const;

  const machine::Config& config_;
  const Speaker speaker_;
  std::atomic<VmState> state_{VmState::configured};
  EndEvent end_;
  Event hurry_;  // the user has lost patience: nothing waits for slow readers any more
  CoreProcess core_;
  Terminal terminal_;
  Watch watch_;
  TscMeasurement tsc_;
  u64 tsc_khz_ = 0;
  std::optional<Registry> registry_;
  Fd entry_;  // in it, while open
  std::string name_;
  Images images_;
  PerfMap perf_map_;
  std::optional<Symbols> symbols_;  // once they are needed
  Attachments attachments_;
  bool button_pressed_ = false;            // Watch's
  std::atomic<bool> command_runs_{false};  // attachments_.command may be asked by Watch's thread
  std::unique_ptr<MachineState> machine_;  // from VmState::running on, for every thread
  Fd gdb_listener_;
  std::unique_ptr<gdb::Server> gdb_;
  std::unique_ptr<ControlSocket> control_;
  std::vector<std::thread> threads_;
  std::vector<channel::VcpuStats> stats_;
  ResetLimit resets_;
  int trace_error_ = 0;  // the core's
  bool hinted_ = false;
  Clock::time_point started_;
};

}  // namespace trapline::monitor
