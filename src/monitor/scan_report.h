// --scan-report: the log of executed sensitive instructions that the core keeps (engine/common/executed_scan.h), as
// JSON. The core may have been taken over by its guest: every field of the log is checked, and no guest byte is decoded
// here.
#pragma once

#include <string>

#include "monitor/files.h"
#include "monitor/symbols.h"

namespace trapline::monitor {

Fd open_scan_report(const std::string& path);  // errno says why not
Fd create_executed_log();

// Writes the schema of `trapline scan --json`, one image of kind "executed". Error message, or empty. `cancel`: as in
// write_all().
std::string write_scan_report(int file, int log, const std::string& kernel, const Symbols& symbols, int cancel);

}  // namespace trapline::monitor
