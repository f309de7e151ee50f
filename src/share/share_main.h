// The process that serves one shared folder: `trapline __share`, started by the monitor.
#pragma once

namespace trapline::share {

int share_main(int argc, char** argv);

}  // namespace trapline::share
