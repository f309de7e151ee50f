// One VM, from a checked configuration to an exit code. docs/architecture.md, "The life of a run".
#pragma once

#include <memory>

#include "machine/config.h"
#include "monitor/speaker.h"
#include "monitor/vm_actions.h"

namespace trapline::monitor {

class VmRun;

class Vm {
 public:
  // `config` outlives it. Throws HostRefused.
  Vm(const machine::Config& config, Speaker speaker);
  ~Vm();
  Vm(const Vm&) = delete;

  // The whole life, on this process's terminal: returns the exit code (channel/exit_codes.h). Once; on the main thread,
  // before any other thread exists.
  int run();

  // -- Any thread
  VmState state() const;
  Result<Answer, ActionError> act(const Action& what);

 private:
  std::unique_ptr<VmRun> run_;
};

// A Vm's life, with what becomes of this process meanwhile: signals, no new privileges, what is done when memory is out.
int run_vm(const machine::Config& config, const Speaker& speaker);

// Open standard descriptors before anything else may take their numbers. Returns false when standard output is closed.
bool secure_standard_descriptors();

}  // namespace trapline::monitor
