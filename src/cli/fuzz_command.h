// trapline fuzz: the differential tester's options.
#pragma once

#include <CLI/CLI.hpp>

#include "fuzz/fuzz.h"

namespace trapline::cli {

class FuzzCommand {
 public:
  explicit FuzzCommand(CLI::App& app);
  bool parsed() const { return command_->parsed(); }
  int run();  // exit code

 private:
  CLI::App* command_;
  CLI::Option* seed_;
  fuzz::FuzzOptions options_;
};

}  // namespace trapline::cli
