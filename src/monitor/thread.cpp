#include "monitor/thread.h"

#include <fmt/format.h>

#include <system_error>

#include "base/host_refused.h"
#include "monitor/confine.h"

namespace trapline::monitor {

std::thread start_thread(std::function<void()> body, OnFailure failed) {
  try {
    return std::thread{[body = std::move(body), failed = std::move(failed)] {
      try {
        body();
      } catch (const HostRefused& refused) {
        failed(ExitCode::host_refused, refused.what());
      } catch (const std::exception& error) {
        failed(ExitCode::internal_error, fmt::format("internal error: {}", error.what()));
      }
    }};
  } catch (const std::system_error& error) {
    throw HostRefused{
        fmt::format("no thread can be started: {}: raise the limits of processes and memory (ulimit -u, ulimit -d)",
                    error.code().message())};
  }
}

std::thread start_confined_thread(std::function<void()> body, OnFailure failed, std::vector<int> more) {
  return start_thread(
      [body = std::move(body), more = std::move(more)] {
        confine_thread(more);
        body();
      },
      std::move(failed));
}

}  // namespace trapline::monitor
