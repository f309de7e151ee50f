// What a PC's firmware would have left in CMOS, and what QEMU's would offer through fw_cfg: memory sizes, CPUs, command
// line.
#pragma once

#include "devices/fw_cfg.h"
#include "devices/rtc.h"
#include "machine/config.h"

namespace trapline::machine {

void fill_cmos(devices::Rtc& rtc, const Config& config);
void fill_fw_cfg(devices::FwCfg& fw_cfg, const Config& config);

}  // namespace trapline::machine
