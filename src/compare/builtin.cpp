#include "compare/builtin.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "exec/cpio.h"

extern "C" const trapline::u8 trapline_workload_begin[], trapline_workload_end[];

namespace trapline::compare {

namespace {

constexpr std::string_view kPrefix = "workload: ", kBegin = "begin", kEnd = "end";

}  // namespace

// Of the consoles that there are the last one is the workload's: Xen's guests have hvc0, the others do not.
const char* const kBuiltinCommandLine =
    "console=ttyS0 console=hvc0 quiet loglevel=1 panic=-1 no_timer_check cryptomgr.notests apparmor=0 selinux=0 "
    "audit=0 "
    "random.trust_cpu=on 8250.nr_uarts=1 rodata=off";

Result<int, std::string> make_builtin_initrd() {
  const int fd = ::memfd_create("initramfs", MFD_CLOEXEC);
  const auto failed = [] { return Err{fmt::format("compare: no memory for the workload: {}", std::strerror(errno))}; };
  if (fd < 0) return failed();
  exec::Cpio archive{fd};
  archive.directory("dev");
  archive.file("init", std::span<const u8>{trapline_workload_begin, trapline_workload_end}, 0755);
  if (archive.finish()) return fd;
  ::close(fd);
  return failed();
}

std::vector<Part> parts_of(const GuestRun& run) {
  std::vector<Part> parts;
  double last = 0;
  for (const Line& line : run.lines) {
    if (!line.text.starts_with(kPrefix)) continue;
    const std::string word{line.text.substr(kPrefix.size(), line.text.find(' ', kPrefix.size()) - kPrefix.size())};
    if (word != kEnd) parts.push_back({word == kBegin ? "boot" : word, line.seconds - last});
    last = line.seconds;
  }
  return parts;
}

}  // namespace trapline::compare
