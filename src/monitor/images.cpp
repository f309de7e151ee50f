#include "monitor/images.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "monitor/perf_map.h"
#include "monitor/scan_report.h"
#include "monitor/split_locks.h"

namespace trapline::monitor {

namespace {

using About = VmError::About;
using Reason = VmError::Reason;

Result<Fd, VmError> open_trace_file(const machine::Config& config) {
  if (config.trace_mask == 0 && !config.dump_guest && !config.dump_host) return Fd{};
  if (config.trace_file.empty()) return Fd{::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)};
  Fd fd{::open(config.trace_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644)};
  if (!fd) return Err{VmError{About::trace_file, Reason::cannot_write, config.trace_file, errno}};
  return fd;
}

constexpr u64 kLargestImage = 256 * GiB;  // as the largest guest
constexpr u64 kLargestMap = 256 * MiB;    // Linux's have some 10 MiB

using Opened = Result<void, VmError>;

// Opens into `slot` unless `path` is empty.
Opened open_into(Fd& slot, const std::string& path, About about, u64 most = kLargestImage) {
  if (path.empty()) return {};
  auto fd = open_image(path, about, most);
  if (!fd) return Err{fd.error()};
  slot = std::move(*fd);
  return {};
}

Opened open_firmware(Images& images, const machine::Config& config) {
  constexpr u64 kBlock = 64 * KiB, kLargest = 8 * MiB;
  if (auto opened = open_into(images.kernel, config.firmware, About::firmware); !opened) return opened;
  struct stat st {};
  ::fstat(images.kernel.get(), &st);
  images.rom = static_cast<u64>(st.st_size);
  if (images.rom % kBlock != 0 || images.rom > kLargest)
    return Err{VmError{About::firmware, Reason::not_a_rom, config.firmware, 0, images.rom}};
  return {};
}

// An option ROM: 55 AA, then its length in units of 512 bytes (PCI Firmware 3.0, 5.2).
Opened read_vga_bios(std::vector<u8>& bytes, const std::string& path) {
  constexpr u64 kLargest = 64 * KiB;
  Fd fd;
  if (auto opened = open_into(fd, path, About::vga_bios, kLargest); !opened) return opened;
  bytes.resize(kLargest);
  const ssize_t n = ::pread(fd.get(), bytes.data(), bytes.size(), 0);
  bytes.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  if (bytes.size() < 512 || bytes[0] != 0x55 || bytes[1] != 0xaa || bytes[2] * std::size_t{512} > bytes.size())
    return Err{VmError{About::vga_bios, Reason::no_option_rom, path}};
  return {};
}

}  // namespace

Result<Images, VmError> Images::open(const machine::Config& config) {
  Images images;
  Opened opened;
  if (!config.firmware.empty())
    opened = open_firmware(images, config);
  else if (config.kernel_fd >= 0)
    images.kernel = Fd{::fcntl(config.kernel_fd, F_DUPFD_CLOEXEC, 3)};
  else
    opened = open_into(images.kernel, config.kernel, About::kernel);
  if (config.initrd_fd >= 0)
    images.initrd = Fd{::fcntl(config.initrd_fd, F_DUPFD_CLOEXEC, 3)};
  else if (opened)
    opened = open_into(images.initrd, config.initrd, About::initrd);
  if (opened && config.display()) opened = read_vga_bios(images.vga_bios, config.vga_bios);
  if (opened) opened = open_into(images.system_map, config.system_map, About::system_map, kLargestMap);
  for (const auto& m : config.modules) {
    images.modules.emplace_back();
    if (opened) opened = open_into(images.modules.back(), m.path, About::module);
  }
  if (!opened) return Err{opened.error()};
  auto trace = open_trace_file(config);
  if (!trace) return Err{trace.error()};
  images.trace = std::move(*trace);
  if (!config.scan_report.empty()) {
    images.scan_report = open_scan_report(config.scan_report);
    if (!images.scan_report) return Err{VmError{About::scan_report, Reason::cannot_write, config.scan_report, errno}};
    images.executed = create_executed_log();
    if (!images.executed) return Err{VmError{About::scan_report, Reason::no_log, {}, errno}};
  }
  if (config.counts_fd >= 0) images.counts = Fd{::fcntl(config.counts_fd, F_DUPFD_CLOEXEC, 3)};
  if (config.perf_map) {
    images.names = PerfMap::create_log();
    if (!images.names) return Err{VmError{About::perf_map, Reason::no_log, {}, errno}};
  }
  return images;
}

std::vector<int> Images::inherited() const {
  std::vector<int> fds{kernel.get()};
  if (initrd) fds.push_back(initrd.get());
  if (trace) fds.push_back(trace.get());
  if (executed) fds.push_back(executed.get());
  if (names) fds.push_back(names.get());
  if (counts) fds.push_back(counts.get());
  for (const auto& m : modules) fds.push_back(m.get());
  return fds;
}

channel::Launch Images::launch(const machine::Config& config) const {
  channel::Launch l;
  l.kernel_fd = kernel.get(), l.initrd_fd = initrd.get(), l.trace_fd = trace.get();
  l.scan_fd = executed.get(), l.names_fd = names.get(), l.counts_fd = counts.get();
  l.kernel_name = config.firmware.empty() ? config.kernel : config.firmware;
  l.rom = rom, l.text_screen = config.display();
  l.command_line = config.append;
  l.cpu_features = config.cpu_features;
  for (std::size_t i = 0; i < modules.size(); i++)
    l.modules.push_back({modules[i].get(), config.modules[i].path, config.modules[i].arguments});
  l.engine = config.engine;
  l.memory = config.memory;
  l.cpus = config.cpus;
  l.trace_mask = config.trace_mask;
  l.para_kvm = config.para == machine::ParaChoice::kvm || config.para == machine::ParaChoice::automatic;
  l.para_xen = config.para == machine::ParaChoice::xen;
  if (l.para_xen) l.xen_disks = static_cast<u32>(config.disks.size());
  if (l.para_xen) l.xen_networks = static_cast<u32>(config.networks.size());
  l.instructions_clock = config.clock == machine::ClockChoice::instructions;
  l.debugger = config.debugged();
  const machine::EngineSettings& settings = config.engine_settings;
  l.hot_threshold = settings.hot_threshold, l.engine_debug = settings.debug;
  l.patch_traps = settings.traps;
  l.miscompile_at = settings.miscompile_at, l.miscompile_how = settings.miscompile_how;
  l.split_locks_trap = host_traps_split_locks();
  l.count_instructions = config.stats || l.instructions_clock || l.debugger || config.verify;
  l.verify = config.verify, l.dump_guest = config.dump_guest, l.dump_host = config.dump_host;
  // Beyond what --timeout leaves time for, it is no longer the guest that runs.
  if (config.timeout_seconds > 0) l.cpu_seconds = static_cast<u64>(config.timeout_seconds + 60) * (config.cpus + 1);
  return l;
}

}  // namespace trapline::monitor
