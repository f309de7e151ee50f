#include "monitor/registry.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <sstream>

namespace trapline::monitor {

namespace {

using About = VmError::About;
using Reason = VmError::Reason;

constexpr std::size_t kLongestName = 64, kLongestEntry = 8192;

std::string place() {
  const char* runtime = ::getenv("XDG_RUNTIME_DIR");
  if (runtime && *runtime == '/') return std::string{runtime} + "/trapline";
  return fmt::format("/tmp/trapline-{}", ::geteuid());
}

// Held by somebody: the VM lives.
bool is_held(int fd) {
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) return true;
  return false;
}

// "PID STARTED", then what it is: a line each.
std::string text_of(const RunningVm& vm) { return fmt::format("{} {}\n{}\n", vm.pid, vm.started, vm.what); }

std::optional<RunningVm> read_entry(int fd, const std::string& name) {
  char text[kLongestEntry];
  const ssize_t n = ::pread(fd, text, sizeof text, 0);
  if (n <= 0) return std::nullopt;
  std::istringstream in{std::string{text, static_cast<std::size_t>(n)}};
  RunningVm vm;
  vm.name = name;
  if (!(in >> vm.pid >> vm.started) || vm.pid <= 1) return std::nullopt;
  in.ignore(1);
  std::getline(in, vm.what);
  return vm;
}

}  // namespace

bool Registry::is_name(const std::string& name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
  };
  return !name.empty() && name.size() <= kLongestName && name[0] != '.' && name[0] != '-' &&
         std::all_of(name.begin(), name.end(), good);
}

Result<Registry, VmError> Registry::open() {
  const std::string path = place();
  ::mkdir(path.c_str(), 0700);
  Registry r;
  r.folder_ = Fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
  struct stat st {};
  if (!r.folder_ || ::fstat(r.folder_.get(), &st) != 0)
    return Err{VmError{About::names, Reason::cannot_open, path, errno}};
  if (st.st_uid != ::geteuid() || (st.st_mode & 022) != 0)
    return Err{VmError{About::names, Reason::writable_by_others, path}};
  return r;
}

Fd Registry::try_enter(RunningVm& vm, const std::string& name, bool& taken) const {
  Fd fd{::openat(folder_.get(), name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600)};
  taken = fd && is_held(fd.get());
  if (!fd || taken) return {};
  vm.name = name;
  const std::string text = text_of(vm);
  // Somebody who took it for stale may have unlinked it between open and lock.
  struct stat mine {
  }, there{};
  if (::ftruncate(fd.get(), 0) != 0 || ::pwrite(fd.get(), text.data(), text.size(), 0) < 0 ||
      ::fstat(fd.get(), &mine) != 0 || ::fstatat(folder_.get(), name.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0 ||
      mine.st_ino != there.st_ino)
    return {};
  return fd;
}

Result<Fd, VmError> Registry::enter(RunningVm& vm, const std::string& stem) const {
  vm.pid = ::getpid();
  vm.started = ::time(nullptr);
  std::replace(vm.what.begin(), vm.what.end(), '\n', ' ');
  vm.what.resize(std::min<std::size_t>(vm.what.size(), kLongestEntry / 2));
  bool taken = false;
  if (!vm.name.empty()) {
    for (int tries = 0; tries < 3; tries++)
      if (Fd fd = try_enter(vm, std::string{vm.name}, taken); fd || taken) {
        if (taken) return Err{VmError{About::name, Reason::taken, vm.name}};
        return fd;
      }
    return Err{VmError{About::name, Reason::cannot_open, vm.name, errno}};
  }
  constexpr int kMost = 10'000;
  if (stem != kStem)
    if (Fd fd = try_enter(vm, stem, taken); fd) return fd;
  for (int number = 1; number < kMost; number++)
    if (Fd fd = try_enter(vm, fmt::format("{}{}", stem, number), taken); fd) return fd;
  return Err{VmError{About::name, Reason::no_name_left}};
}

void Registry::leave(const std::string& name) const { ::unlinkat(folder_.get(), name.c_str(), 0); }

std::vector<RunningVm> Registry::all() const {
  std::vector<RunningVm> found;
  std::vector<std::string> sockets;
  DIR* folder = ::fdopendir(::openat(folder_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return found;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string name = entry->d_name;
    if (name[0] == '.' && (name.ends_with(".console") || name.ends_with(".control"))) sockets.push_back(name);
    if (!is_name(name)) continue;
    const Fd fd{::openat(folder_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)};
    if (!fd) continue;
    if (!is_held(fd.get()))
      leave(name);
    else if (auto vm = read_entry(fd.get(), name))
      found.push_back(std::move(*vm));
  }
  ::closedir(folder);
  for (const std::string& socket : sockets)  // of VMs that have gone
    if (std::none_of(found.begin(), found.end(), [&](const RunningVm& v) {
          return console_name(v.name) == socket || control_name(v.name) == socket;
        }))
      leave(socket);
  std::sort(found.begin(), found.end(), [](const RunningVm& a, const RunningVm& b) { return a.name < b.name; });
  return found;
}

Result<RunningVm, VmError> Registry::find(const std::string& name) const {
  std::string names;
  for (RunningVm& vm : all()) {
    if (vm.name == name) return std::move(vm);
    names += (names.empty() ? "" : ", ") + vm.name;
  }
  return Err{VmError{About::vm, Reason::no_such_vm, name, 0, 0, names}};
}

}  // namespace trapline::monitor
