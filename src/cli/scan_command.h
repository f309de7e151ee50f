// trapline scan: sensitive instructions in files.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "scan/report.h"

namespace trapline::cli {

class ScanCommand {
 public:
  ScanCommand(CLI::App& app, std::string version);
  bool parsed() const { return command_->parsed(); }
  int run();  // exit code: 0, 2 for wrong options, 3 when a file could not be scanned or written

 private:
  std::string check();  // the message, if an option is wrong
  bool scan(const std::string& path);
  int write();
  // What went wrong, or empty.
  std::string write_report();
  std::string write_page();

  CLI::App* command_;
  std::string version_;
  std::vector<std::string> files_;
  std::string html_, output_ = "-", base_, classes_ = "critical,privileged", vendor_;
  unsigned bits_ = 0;
  int ring_ = -1;
  bool json_ = false, sarif_ = false, summary_ = false;
  u64 base_address_ = 0;
  scan::ScanOptions scan_options_;
  scan::ReportOptions options_;
  std::vector<scan::Report> reports_;
};

}  // namespace trapline::cli
