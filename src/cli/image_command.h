// trapline image build, ls, rm: disk images by name.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace trapline::cli {

class ImageCommand {
 public:
  explicit ImageCommand(CLI::App& app);
  bool parsed() const { return command_->parsed(); }
  int run();  // exit code: 0, 2 for wrong words, 3 for what is missing or failed

 private:
  int build() const;
  int list() const;
  int remove() const;

  CLI::App* command_;
  std::vector<std::string> words_;  // what to do, and with what
  std::string packages_, size_ = "4G", format_ = "raw", suite_, user_ = "debian";
  bool autologin_ = false, json_ = false;
};

}  // namespace trapline::cli
