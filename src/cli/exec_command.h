// trapline exec: one command in a VM of its own, on the host's files.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/options.h"
#include "exec/initramfs.h"

namespace trapline::cli {

class ExecCommand {
 public:
  explicit ExecCommand(CLI::App& app);
  const CLI::App* app() const { return command_; }
  bool parsed() const { return command_->parsed(); }
  // Takes the command behind "--" out of the words, which are those behind `trapline`, unless they are another
  // command's.
  void take_command(std::vector<std::string>& words);
  // The VM for it. An error is one line.
  Result<RunOptions, std::string> prepare();

 private:
  std::string check();
  std::string add_network(RunOptions& o);
  std::string add_root(RunOptions& o);
  std::string add_share(const std::string& text, RunOptions& o);
  void share(const std::string& path, bool readonly, RunOptions& o);
  std::string fill_task();
  std::string make_initrd(RunOptions& o);

  CLI::App* command_;
  std::vector<std::string> arguments_, shares_, environment_;
  std::vector<std::string> disks_;
  std::string network_ = "none";
  std::string kernel_, modules_, rootfs_ = "host", memory_ = "1G", engine_ = "auto", workdir_, append_;
  double timeout_ = 0;
  u32 cpus_ = 1;
  bool verbose_ = false;
  exec::Task task_;
};

}  // namespace trapline::cli
