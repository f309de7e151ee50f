#include "monitor/scan_report.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <vector>

#include "base/write.h"
#include "channel/executed_log.h"
#include "scan/report.h"

namespace trapline::monitor {

namespace {

using channel::ExecutedInsn;
using channel::ExecutedLog;

std::vector<ExecutedInsn> read_log(int fd, u32& count) {
  std::vector<ExecutedInsn> log;
  if (::pread(fd, &count, sizeof count, offsetof(ExecutedLog, count)) != sizeof count) return {};
  log.resize(std::min(count, ExecutedLog::kCapacity));
  std::size_t done = 0;
  const std::size_t bytes = log.size() * sizeof(ExecutedInsn);
  while (done < bytes) {
    const ssize_t n = ::pread(fd, reinterpret_cast<char*>(log.data()) + done, bytes - done,
                              static_cast<off_t>(offsetof(ExecutedLog, insn) + done));
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  log.resize(done / sizeof(ExecutedInsn));
  return log;
}

bool plausible(const ExecutedInsn& e) {
  return e.row < static_cast<u16>(isa::RowId::count) && e.length >= 1 && e.length <= sizeof e.bytes && e.cpl <= 3 &&
         (e.bits == 16 || e.bits == 32 || e.bits == 64);
}

std::string text_of(const ExecutedInsn& e) {
  std::string text{e.text, ::strnlen(e.text, sizeof e.text)};
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return text;
}

class Maker {
 public:
  Maker(scan::Report& report, const Symbols& symbols) : report_{report}, symbols_{symbols} {}

  void add(const ExecutedInsn& e) {
    scan::Item item;
    item.address = e.gva.raw;
    item.row = &isa::row(static_cast<isa::RowId>(e.row));
    item.ring = e.cpl == 3 ? isa::Ring::ring3 : isa::Ring::ring0;
    item.cls = isa::class_of(item.row, item.ring);
    item.code_size = static_cast<isa::CodeSize>(e.bits / 8);
    item.how = scan::How::executed;
    item.cpl = static_cast<i8>(e.cpl);
    item.length = e.length;
    std::copy_n(e.bytes, e.length, item.bytes.begin());
    item.text = static_cast<i32>(report_.texts.size());
    report_.texts.push_back(text_of(e));
    if (e.cpl == 0) name(item);
    report_.counts.of(item.cls)++;
    report_.items.push_back(std::move(item));
  }

 private:
  void name(scan::Item& item) {
    const std::string nearest = symbols_.name(Gva{item.address});  // "schedule+0x1c"
    const auto plus = nearest.rfind("+0x");
    if (plus == std::string::npos) return;
    item.function_offset = static_cast<u32>(std::stoull(nearest.substr(plus + 3), nullptr, 16));
    const auto [at, added] = known_.emplace(nearest.substr(0, plus), static_cast<int>(report_.functions.size()));
    if (added) report_.functions.push_back({at->first, item.address - item.function_offset, 0, -1, {}});
    item.function = at->second;
    report_.functions[static_cast<std::size_t>(item.function)].counts.of(item.cls)++;
  }

  scan::Report& report_;
  const Symbols& symbols_;
  std::map<std::string, int> known_;
};

}  // namespace

Fd open_scan_report(const std::string& path) {
  return Fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644)};
}

Fd create_executed_log() {
  Fd fd{::memfd_create("trapline-executed", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  if (!fd || ::ftruncate(fd.get(), sizeof(ExecutedLog)) != 0) return {};
  // The core maps it; nobody can make it shorter or longer.
  ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  return fd;
}

std::string write_scan_report(int file, int log, const std::string& kernel, const Symbols& symbols, int cancel) {
  scan::Report report;
  report.name = kernel;
  report.format = "code that the guest executed";
  report.kind = "executed";
  report.ring = "both";
  u32 count = 0;
  std::vector<ExecutedInsn> entries = read_log(log, count);
  if (count > ExecutedLog::kCapacity)
    report.warnings.push_back(fmt::format("{} instructions did not fit the log", count - ExecutedLog::kCapacity));
  std::erase_if(entries, [](const ExecutedInsn& e) { return !plausible(e); });
  const auto key = [](const ExecutedInsn& e) { return std::tuple{e.gva, e.cpl, e.bits, e.row}; };
  std::sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  // A guest that was reset has executed the same again.
  entries.erase(
      std::unique(entries.begin(), entries.end(), [&](const auto& a, const auto& b) { return key(a) == key(b); }),
      entries.end());
  Maker maker{report, symbols};
  for (const ExecutedInsn& e : entries) maker.add(e);
  int error = 0;
  scan::write_json(
      [&](std::string_view piece) {
        if (error == 0) error = write_all(file, piece, cancel);
      },
      {&report, 1}, {});
  return error ? ::strerror(error) : std::string{};
}

}  // namespace trapline::monitor
