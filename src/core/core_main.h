// The core process, from exec to end. Started by the monitor only: channel/core_start.h.
#pragma once

namespace trapline::core {

int core_main(int argc, char** argv);

}  // namespace trapline::core
