// What a core leaves behind, read by the monitor: its last words, its counters, the logs of --scan-report and
// --perf-map. Whatever it is becomes printable text.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <string>

#include "base/invariant.h"
#include "channel/channel.h"
#include "channel/executed_log.h"
#include "monitor/scan_report.h"
#include "monitor/stats.h"
#include "monitor/symbols.h"

using namespace trapline;
using namespace trapline::monitor;

namespace {

void scan_log(std::string_view bytes) {
  const Fd log{::memfd_create("log", MFD_CLOEXEC)}, report{::memfd_create("report", MFD_CLOEXEC)};
  // No longer than the input: a real one has 12 MiB, which would be nearly all of the time.
  INVARIANT(::ftruncate(log.get(), static_cast<off_t>(offsetof(channel::ExecutedLog, insn) + bytes.size())) == 0 &&
                ::pwrite(log.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()),
            "no log");
  const std::string wrong = write_scan_report(report.get(), log.get(), "kernel", {}, -1);
  INVARIANT(wrong.empty(), "{}", wrong);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes{reinterpret_cast<const char*>(data + 1), size - 1};
  if (data[0] & 1) {
    scan_log(bytes);
    return 0;
  }
  const std::size_t half = bytes.size() / 2;
  const Symbols symbols = Symbols::parse(bytes.substr(half));
  for (const char c : present(bytes.substr(0, half), symbols))
    INVARIANT(c == '\n' || (c >= ' ' && c <= '~') || bytes.substr(half).find(c) != std::string_view::npos,
              "an unprintable byte of the core's");
  channel::VcpuStats stats;
  std::memcpy(static_cast<void*>(&stats), bytes.data(), std::min(bytes.size(), sizeof stats));
  stats_text({stats, stats}, 0.5);
  return 0;
}
