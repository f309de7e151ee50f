// trapline isa: the instruction table, what it means on this host, and whether the host agrees.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "isa/table.h"

namespace trapline::cli {

class IsaCommand {
 public:
  explicit IsaCommand(CLI::App& app);
  bool parsed() const { return command_->parsed(); }
  int run();  // exit code: 0; 1 where --verify finds a mismatch; 2 for an unknown name; 9 where nothing can be written

 private:
  std::string wrong() const;  // with the options; empty: nothing
  // False: one of the names is no instruction's, and that has been said.
  bool resolve(std::vector<const isa::Row*>& rows, std::string& innocuous) const;
  int explain(const std::vector<const isa::Row*>& rows, std::string out) const;

  CLI::App* command_;
  std::vector<std::string> names_;
  int ring_ = -1;
  std::string class_;
  bool verify_ = false, json_ = false, html_ = false, markdown_ = false;
};

}  // namespace trapline::cli
