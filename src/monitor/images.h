// All files of a VM, opened once and kept: a reset boots from the same ones.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "channel/launch.h"
#include "machine/config.h"
#include "monitor/files.h"

namespace trapline::monitor {

struct Images {
  Fd kernel, initrd, trace, system_map;
  Fd scan_report, executed;  // --scan-report: its file, and the log that the core writes
  Fd names;                  // --perf-map: the log that the core writes
  Fd counts;                 // of sensitive instructions
  std::vector<Fd> modules;
  u64 rom = 0;               // bytes of firmware, which then is in `kernel`
  std::vector<u8> vga_bios;  // of a display

  static Result<Images, VmError> open(const machine::Config& config);
  std::vector<int> inherited() const;  // what the core gets
  // Without ram_fd, which changes with every start.
  channel::Launch launch(const machine::Config& config) const;
};

}  // namespace trapline::monitor
