#include "monitor/run_figures.h"

#include <unistd.h>

#include <type_traits>

namespace trapline::monitor {

static_assert(std::is_trivially_copyable_v<RunFigures>);

bool write_figures(int fd, const RunFigures& figures) {
  return ::pwrite(fd, &figures, sizeof figures, 0) == sizeof figures;
}

std::optional<RunFigures> read_figures(int fd) {
  RunFigures figures;
  if (::pread(fd, &figures, sizeof figures, 0) != sizeof figures) return std::nullopt;
  return figures;
}

}  // namespace trapline::monitor
