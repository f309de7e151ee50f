#include "cli/exec_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cli/disk_option.h"
#include "exec/kernel.h"
#include "exec/plain_kernel.h"
#include "image/store.h"
#include "monitor/volume_process.h"
#include "wording/vm_error.h"

namespace trapline::cli {

namespace {

// What a command finds of its user's environment; the rest is for --env.
constexpr const char* kPassedOn[] = {"PATH", "HOME", "USER", "LOGNAME",   "SHELL",
                                     "LANG", "TERM", "TZ",   "COLORTERM", "NO_COLOR"};

// The kernel says nothing unless it dies, tests nothing (rodata=off: a walk through all page tables, a quarter of the
// instructions of a boot), waits for no hardware that is not there, and puts programs where they were the last time, so
// that what has been translated of them is found where it is.
constexpr const char* kCommandLine =
    "console=ttyS0 panic=-1 no_timer_check cryptomgr.notests apparmor=0 selinux=0 audit=0 mitigations=off "
    "random.trust_cpu=on 8250.nr_uarts=1 rcupdate.rcu_expedited=1 rodata=off init_on_alloc=0";

std::string real_path(const std::string& path) {
  char resolved[PATH_MAX];
  return ::realpath(path.c_str(), resolved) ? resolved : std::string{};
}

mode_t current_umask() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return mask;
}

}  // namespace

ExecCommand::ExecCommand(CLI::App& app)
    : command_{app.add_subcommand("exec", "run one command in a VM of its own: trapline exec -- COMMAND ARGUMENTS")} {
  CLI::App& c = *command_;
  c.add_option("--share", shares_, "a folder that the command sees at the same place; default: the current one")
      ->type_name("DIR[:readonly]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  c.add_option(
       "--rootfs", rootfs_,
       "what is / for the command, read-only below a layer in memory: host, a folder, an image's name or a disk")
      ->type_name("host|DIR|IMAGE")
      ->capture_default_str();
  c.add_option("--net", network_, "none, or user: what this host reaches; user,hostfwd=... as for run")
      ->type_name("none|user")
      ->capture_default_str();
  c.add_option("--disk", disks_, "a disk (virtio-blk) as for run; repeatable")
      ->type_name("FILE[,OPTION...]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  c.add_option("--cpus", cpus_, "virtual CPUs")->type_name("N")->capture_default_str();
  c.add_option("--memory", memory_, "guest RAM")->type_name("SIZE")->capture_default_str();
  c.add_option("--env", environment_, "a variable for the command; without =VALUE: as it is here; repeatable")
      ->type_name("NAME[=VALUE]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  c.add_option("--workdir", workdir_, "where the command starts; default: the current folder")->type_name("DIR");
  c.add_option("--timeout", timeout_, "end the VM after this time, exit code 124; 0: never")->type_name("SECONDS");
  c.add_option("--kernel", kernel_, "a Linux bzImage; default: this host's, else Debian's if it was fetched")
      ->type_name("FILE");
  c.add_option("--modules", modules_, "the kernel's modules, /lib/modules/VERSION; default: looked for")
      ->type_name("DIR");
  c.add_option("--append", append_, "more for the kernel's command line")->type_name("STRING");
  c.add_option("--engine", engine_, "interpret, translate, patch or auto")->type_name("ENGINE")->capture_default_str();
  c.add_flag("--verbose", verbose_, "the guest's console, on standard error");
}

void ExecCommand::take_command(std::vector<std::string>& words) {
  if (words.empty() || words[0] != "exec") return;
  const auto dashes = std::find(words.begin(), words.end(), "--");
  if (dashes == words.end()) return;
  arguments_.assign(dashes + 1, words.end());
  words.erase(dashes, words.end());
}

std::string ExecCommand::check() {
  if (arguments_.empty()) return "exec: no command: trapline exec [OPTIONS] -- COMMAND [ARGUMENTS]";
  const auto holds_zero = [](const std::string& s) { return s.find('\0') != std::string::npos; };
  if (std::any_of(arguments_.begin(), arguments_.end(), holds_zero)) return "exec: a word with a zero byte in it";
  for (const std::string& e : environment_)
    if (e.empty() || e[0] == '=') return fmt::format("--env {}: give NAME=VALUE, or NAME", e);
  return {};
}

void ExecCommand::share(const std::string& path, bool readonly, RunOptions& o) {
  const std::string tag = fmt::format("share{}", task_.shares.size());
  task_.shares.push_back({tag, path, readonly});
  o.config.shares.push_back({path, tag, readonly});
}

std::string ExecCommand::add_share(const std::string& text, RunOptions& o) {
  constexpr std::string_view kReadonly = ":readonly", kShort = ":ro";
  std::string path = text;
  bool readonly = false;
  for (const std::string_view suffix : {kReadonly, kShort})
    if (!readonly && path.ends_with(suffix)) path.resize(path.size() - suffix.size()), readonly = true;
  const std::string resolved = real_path(path);
  if (resolved.empty()) return fmt::format("--share {}: {}: check the path", path, std::strerror(errno));
  if (resolved == "/") return "--share /: that is --rootfs host: share a folder below it";
  share(resolved, readonly, o);
  return {};
}

// Who and where: as this process.
std::string ExecCommand::fill_task() {
  task_.uid = ::getuid(), task_.gid = ::getgid();
  task_.groups.resize(static_cast<std::size_t>(std::max(::getgroups(0, nullptr), 0)));
  if (::getgroups(static_cast<int>(task_.groups.size()), task_.groups.data()) < 0) task_.groups.clear();
  task_.umask = current_umask();
  task_.arguments = arguments_;
  if (winsize size{};
      ::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO) && ::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
    task_.terminal = {size.ws_row, size.ws_col};
  const auto pass_on = [&](const char* name) {
    if (const char* value = ::getenv(name)) task_.environment.push_back(fmt::format("{}={}", name, value));
  };
  for (const char* name : kPassedOn) pass_on(name);
  for (char** e = ::environ; *e; e++)
    if (std::string_view{*e}.starts_with("LC_")) task_.environment.emplace_back(*e);
  for (const std::string& e : environment_) {
    if (e.find('=') == std::string::npos) {
      pass_on(e.c_str());
      continue;
    }
    const std::string name = e.substr(0, e.find('=') + 1);
    std::erase_if(task_.environment, [&](const std::string& other) { return other.starts_with(name); });
    task_.environment.push_back(e);
  }
  return {};
}

// libslirp's network is known beforehand: no DHCP, which would take a second.
std::string ExecCommand::add_network(RunOptions& o) {
  if (network_ == "none") return {};
  if (network_ != "user" && !network_.starts_with("user,"))
    return fmt::format("--net {}: exec sets up user alone: give none or user", network_);
  o.networks.push_back(network_);
  task_.network = "10.0.2.15 255.255.255.0 10.0.2.2 10.0.2.3";
  return {};
}

// A folder is a share; a disk is the first one, and nothing is written to it.
std::string ExecCommand::add_root(RunOptions& o) {
  struct stat st {};
  const std::string path = rootfs_ == "host" ? "/" : rootfs_;
  const bool exists = ::stat(path.c_str(), &st) == 0;
  if (exists && S_ISDIR(st.st_mode)) {
    task_.root = "root";
    o.config.shares.push_back({path, "root", true});
    return {};
  }
  std::string disk = path, format;
  if (!exists && path.find('/') == std::string::npos) {
    const auto store = image::Store::open();
    const auto image = store ? store->find(path) : Result<image::Image, std::string>{Err{store.error()}};
    if (!image) return fmt::format("--rootfs {}: no such folder, disk or image: trapline image ls", path);
    disk = image->disk(), format = ",format=" + image->format;
    task_.root_disk = "/dev/vda";
  } else if (!exists) {
    return fmt::format("--rootfs {}: {}: check the path", path, std::strerror(errno));
  } else {
    machine::DiskConfig root;
    root.path = path;
    const auto files =
        monitor::read_volume(root, {.kernel = false, .initrd = false, .kernel_path = {}, .initrd_path = {}});
    if (!files) return "--rootfs " + wording::line(files.error());
    if (files->root_device.empty()) return fmt::format("--rootfs {}: no partition of it is a root", path);
    task_.root_disk = files->root_device;
  }
  o.disks.push_back(with_commas_doubled(disk) + format + ",readonly");
  return {};
}

std::string ExecCommand::make_initrd(RunOptions& o) {
  auto kernel = exec::find_kernel(kernel_, modules_, {!task_.network.empty(), !o.disks.empty()});
  if (!kernel) return kernel.error();
  o.config.kernel = kernel->path;
  const auto image = exec::open_plain_kernel(kernel->path);
  if (!image) return image.error();
  o.config.kernel_fd = *image;  // as the other: until the process ends
  const int fd = ::memfd_create("initramfs", MFD_CLOEXEC);
  if (fd < 0 || !exec::write_initramfs(fd, task_, kernel->modules))
    return fmt::format("exec: no memory for the VM's first files: {}", std::strerror(errno));
  o.config.initrd_fd = fd;  // until the process ends
  return {};
}

Result<RunOptions, std::string> ExecCommand::prepare() {
  if (const std::string wrong = check(); !wrong.empty()) return Err{wrong};
  RunOptions o;
  o.memory = memory_, o.engine = engine_;
  o.config.cpus = cpus_;
  o.config.timeout_seconds = timeout_;
  o.config.no_reboot = true;
  if (std::string wrong = add_root(o); !wrong.empty()) return Err{wrong};
  if (std::string wrong = add_network(o); !wrong.empty()) return Err{wrong};
  o.disks.insert(o.disks.end(), disks_.begin(), disks_.end());
  const std::string here = real_path(".");
  if (here.empty()) return Err{fmt::format("exec: the current folder: {}: go to another", std::strerror(errno))};
  for (const std::string& s : shares_)
    if (std::string wrong = add_share(s, o); !wrong.empty()) return Err{wrong};
  const bool given =
      std::any_of(task_.shares.begin(), task_.shares.end(), [&](const auto& m) { return m.path == here; });
  if (!given && here != "/") share(here, false, o);
  std::sort(task_.shares.begin(), task_.shares.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  task_.directory = workdir_.empty() ? here : workdir_.starts_with('/') ? workdir_ : here + "/" + workdir_;
  if (std::string wrong = fill_task(); !wrong.empty()) return Err{wrong};
  o.config.what = fmt::format("exec {}", fmt::join(arguments_, " "));
  o.config.command = {true, task_.terminal.has_value(), verbose_};
  o.config.append =
      fmt::format("{} nr_cpus={} {} {}", kCommandLine, cpus_, verbose_ ? "loglevel=7" : "quiet loglevel=1", append_);
  if (std::string wrong = make_initrd(o); !wrong.empty()) return Err{wrong};
  return o;
}

}  // namespace trapline::cli
