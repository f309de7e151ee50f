// trapline compare: one guest under every technique, side by side.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/options.h"
#include "compare/comparison.h"

namespace trapline::cli {

class CompareCommand {
 public:
  CompareCommand(CLI::App& app, std::string version);
  bool parsed() const { return command_->parsed(); }
  int run();  // the exit code

 private:
  // What is wrong with the options, or with what they name; the exit code is usage or bad_input.
  struct Wrong {
    int code;
    std::string text;
  };
  Result<compare::Request, Wrong> prepare();
  Result<RunOptions, Wrong> guest();
  Result<RunOptions, Wrong> command_guest();
  Result<RunOptions, Wrong> builtin_guest();
  std::string choose_techniques(const machine::Config& config, compare::Request& request) const;
  int report(const compare::Comparison& comparison, const compare::Request& request) const;

  CLI::App* command_;
  std::string version_, description_;
  std::string kernel_, initrd_, append_, program_, memory_ = kMemory, engines_ = "all", paras_ = "all", html_;
  u32 cpus_ = 1, rounds_ = 3;
  double timeout_ = 300;
  bool json_ = false;
};

}  // namespace trapline::cli
