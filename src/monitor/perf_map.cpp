#include "monitor/perf_map.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <vector>

#include "base/write.h"
#include "channel/code_names.h"

namespace trapline::monitor {

namespace {

using channel::CodeNames;

// As the log has it, without the atomics.
struct Entry {
  Hva host;
  u64 bytes;
  Gva guest;
  u32 ready, vcpu;
};
static_assert(sizeof(Entry) == sizeof(channel::CodeName));

// The core wrote it: believe nothing. User-space addresses, sizes of translated blocks.
bool plausible(const Entry& e) { return e.host.raw >> 47 == 0 && e.bytes > 0 && e.bytes <= MiB; }

std::string name_of(const Entry& e, const Symbols& symbols) {
  if (e.guest == Gva{}) return "trapline thunks";
  // A System.map names the kernel's half only.
  const bool kernel = e.guest.raw >> 31;
  const std::string symbol = kernel ? symbols.name(e.guest) : std::string{};
  return fmt::format("{} [{:x}]", symbol.empty() ? "guest" : symbol, e.guest.raw);
}

}  // namespace

Fd PerfMap::create_log() {
  Fd fd{::memfd_create("trapline-names", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  if (!fd || ::ftruncate(fd.get(), sizeof(CodeNames)) != 0) return {};
  // The core maps it; nobody can make it shorter or longer.
  ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  return fd;
}

// Others may write to /tmp: the file is made here and now, or not at all.
std::string PerfMap::begin(int log, pid_t core) {
  if (!path_.empty()) earlier_.push_back(path_);
  if (earlier_.size() > kKept) {
    ::unlink(earlier_.front().c_str());
    earlier_.pop_front();
  }
  path_ = fmt::format("/tmp/perf-{}.map", core);
  ::unlink(path_.c_str());
  file_ = Fd{::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644)};
  u32 count = 0;
  if (::pread(log, &count, sizeof count, offsetof(CodeNames, count)) == sizeof count)
    done_ = std::min(count, CodeNames::kCapacity);  // those before are of a core that was reset
  return file_ ? std::string{} : fmt::format("--perf-map: {}: {}", path_, std::strerror(errno));
}

std::string PerfMap::update(int log, const Symbols& symbols) {
  if (!file_) return {};
  u32 count = 0;
  if (::pread(log, &count, sizeof count, offsetof(CodeNames, count)) != sizeof count) return {};
  std::string text;
  while (done_ < std::min(count, CodeNames::kCapacity)) {
    std::vector<Entry> some(std::min<u32>(4096, std::min(count, CodeNames::kCapacity) - done_));
    const auto at = static_cast<off_t>(offsetof(CodeNames, name) + u64{done_} * sizeof(Entry));
    const ssize_t bytes = static_cast<ssize_t>(some.size() * sizeof(Entry));
    if (::pread(log, some.data(), static_cast<std::size_t>(bytes), at) != bytes) break;
    std::size_t n = 0;
    for (; n < some.size() && some[n].ready; n++)
      if (plausible(some[n]))
        fmt::format_to(std::back_inserter(text), "{:x} {:x} {}\n", some[n].host.raw, some[n].bytes,
                       name_of(some[n], symbols));
    done_ += static_cast<u32>(n);
    if (n < some.size()) break;  // being written at this moment
  }
  if (const int error = write_all(file_.get(), text)) {
    file_ = Fd{};
    return fmt::format("--perf-map: {}: {}: the map is not complete", path_, ::strerror(error));
  }
  if (count <= CodeNames::kCapacity || full_) return {};
  full_ = true;
  return fmt::format("--perf-map: {}: full after {} blocks: later ones have no name", path_, CodeNames::kCapacity);
}

}  // namespace trapline::monitor
