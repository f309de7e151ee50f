// trapline ps, stop, kill, console, logs, balloon: what is done to VMs that run in other processes.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace trapline::cli {

class VmCommands {
 public:
  explicit VmCommands(CLI::App& app);
  bool parsed() const {
    return ps_->parsed() || stop_->parsed() || kill_->parsed() || console_->parsed() || logs_->parsed() ||
           balloon_->parsed();
  }
  int run();  // exit code: 0, 3 for a name that nobody has, 5 when `stop` had to kill

 private:
  int list() const;
  int end() const;
  int balloon() const;

  CLI::App *ps_, *stop_, *kill_, *console_, *logs_, *balloon_;
  bool json_ = false, follow_ = false;
  std::string name_, size_;
  double timeout_ = 40;
};

}  // namespace trapline::cli
