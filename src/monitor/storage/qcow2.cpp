#include "monitor/storage/qcow2.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

namespace trapline::monitor {

namespace {

using machine::DiskFormat;

// QEMU's docs/interop/qcow2.txt: all big-endian.
constexpr char kMagic[] = {'Q', 'F', 'I', '\xfb'};
constexpr std::size_t kHeader = 4096;  // of a cluster's size at most, which is 512 at least; names lie in the first
constexpr u32 kBackingFormat = 0xe2792aca;

template <class T>
T get(const std::string& bytes, std::size_t at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof value; i++)
    value = static_cast<T>(value << 8 | (at + i < bytes.size() ? static_cast<u8>(bytes[at + i]) : 0));
  return value;
}

bool has_magic(int fd) {
  std::array<char, 4> magic{};
  return ::pread(fd, magic.data(), magic.size(), 0) == 4 && std::memcmp(magic.data(), kMagic, 4) == 0;
}

using About = VmError::About;
using Reason = VmError::Reason;

Err<VmError> wrong(Reason reason, int error = 0, std::string said = {}) {
  return {VmError{About::disk, reason, {}, error, 0, std::move(said)}};
}

struct Below {
  std::string file, format;
};

// What the image lies on: nothing for most.
Result<Below, VmError> below(const std::string& image) {
  Fd fd{::open(image.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY)};
  std::string header(kHeader, '\0');
  const ssize_t n = fd ? ::pread(fd.get(), header.data(), header.size(), 0) : -1;
  if (n < 0) return wrong(Reason::chain_unreadable, errno, image);
  header.resize(static_cast<std::size_t>(n));
  const u64 at = get<u64>(header, 8);
  const u32 length = get<u32>(header, 16);
  if (!header.starts_with(std::string_view{kMagic, 4}) || at == 0) return Below{};
  if (length > 1023 || at > kHeader - 1023) return wrong(Reason::bad_header, 0, image);
  Below result;
  result.file = header.substr(at, length);
  const u32 first = get<u32>(header, 4) >= 3 ? get<u32>(header, 100) : 72;
  for (u64 e = first; e + 8 <= header.size() && e + 8 <= at;) {
    const u32 type = get<u32>(header, e), bytes = get<u32>(header, e + 4);
    if (type == 0) break;
    if (type == kBackingFormat && bytes < 32) result.format = header.substr(e + 8, bytes);
    e += 8 + (u64{bytes} + 7) / 8 * 8;
  }
  return result;
}

std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/') + 1); }

std::string resolved(const std::string& path) {
  char whole[PATH_MAX];
  return ::realpath(path.c_str(), whole) ? std::string{whole} : std::string{};
}

// The image and what it lies on. A snapshot's file is where QEMU makes its own.
FileRules::Grants grants_of(const machine::DiskConfig& config, const std::string& image,
                            const std::vector<std::string>& below) {
  FileRules::Grants grants{.read = below, .written = {}};
  (config.read_only || config.snapshot ? grants.read : grants.written).push_back(image);
  if (config.snapshot) {
    const char* temporary = ::getenv("TMPDIR");
    grants.folders.emplace_back(temporary && *temporary ? temporary : "/var/tmp");
  }
  return grants;
}

struct Ends {
  Fd listener, connection;
};

// A listening socket and the first connection to it; its name is gone on return.
Result<Ends, VmError> make_socket() {
  const char* temporary = ::getenv("TMPDIR");
  std::string folder = std::string{temporary && *temporary ? temporary : "/tmp"} + "/trapline-XXXXXX";
  const auto none = [&] { return wrong(Reason::no_socket, errno, folder_of(folder)); };
  if (!::mkdtemp(folder.data())) return none();
  const std::string path = folder + "/s";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  const auto* place = reinterpret_cast<const sockaddr*>(&address);
  Ends ends{Fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)}, Fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)}};
  const bool made = ends.listener && ends.connection && ::bind(ends.listener.get(), place, sizeof address) == 0 &&
                    ::listen(ends.listener.get(), 1) == 0 &&
                    ::connect(ends.connection.get(), place, sizeof address) == 0;
  const int error = errno;
  ::unlink(path.c_str());
  ::rmdir(folder.c_str());
  errno = error;
  if (!made) return none();
  return ends;
}

Err<VmError> explained(const std::string& words, const std::string& why) {
  if (words.find("lock") != std::string::npos || words.find("another process") != std::string::npos)
    return wrong(Reason::in_use);
  return wrong(Reason::qemu_nbd_failed, 0, words.empty() ? why : words);
}

}  // namespace

Result<DiskFormat, VmError> format_of(const machine::DiskConfig& config, int fd) {
  if (config.format == DiskFormat::raw) return DiskFormat::raw;
  const bool looks = has_magic(fd), named = config.path.ends_with(".qcow2") || config.path.ends_with(".qcow");
  if (config.format == DiskFormat::qcow2)
    return looks ? Result<DiskFormat, VmError>{DiskFormat::qcow2} : wrong(Reason::not_qcow2);
  if (looks && named) return DiskFormat::qcow2;
  if (looks) return wrong(Reason::looks_like_qcow2);
  if (named) return wrong(Reason::named_like_qcow2);
  return DiskFormat::raw;
}

Result<std::vector<std::string>, VmError> backing_files(const std::string& image) {
  constexpr std::size_t kMost = 64;
  std::vector<std::string> files;
  for (std::string at = image; files.size() < kMost;) {
    auto next = below(at);
    if (!next) return Err{next.error()};
    if (next->file.empty()) return files;
    if (next->format.empty())
      return wrong(Reason::chain_format_unknown, 0,
                   fmt::format("{} does not say the format of {}, on which it lies: qemu-img rebase -u -F FORMAT -b "
                               "{} {}",
                               at, next->file, next->file, at));
    const std::string path = resolved(next->file[0] == '/' ? next->file : folder_of(at) + next->file);
    if (path.empty()) return wrong(Reason::chain_broken, errno, fmt::format("{} lies on {}", at, next->file));
    files.push_back(path);
    if (next->format != "qcow2") return files;
    at = path;
  }
  return wrong(Reason::chain_endless);
}

Result<NbdServer, VmError> serve_qcow2(const machine::DiskConfig& config) {
  const auto program = find_program("qemu-nbd");
  if (!program) return wrong(Reason::no_qemu_nbd);
  const std::string image = resolved(config.path);  // absolute: "nbd:" at its front would mean something
  const auto files = backing_files(image);
  if (!files) return Err{files.error()};
  const auto rules = FileRules::create(*program, grants_of(config, image, *files));
  if (!rules) return wrong(Reason::no_process, rules.error());
  auto ends = make_socket();
  auto words = HelperWords::create();
  if (!ends) return Err{ends.error()};
  if (!words) return wrong(Reason::no_descriptor, words.error());
  HelperStart start{.program = *program,
                    .arguments = {"--format=qcow2", "--cache=writeback", "--shared=1",
                                  config.discard ? "--discard=unmap" : "--discard=ignore"},
                    .descriptor = ends->listener.get(),
                    .activated = true,
                    .output = words->theirs(),
                    .death_signal = SIGTERM,  // it writes what it holds back
                    .files = &*rules};
  if (config.read_only) start.arguments.emplace_back("--read-only");
  if (config.snapshot) start.arguments.emplace_back("--snapshot");
  if (const char* temporary = ::getenv("TMPDIR")) start.environment.push_back(std::string{"TMPDIR="} + temporary);
  start.arguments.push_back(image);
  auto process = start_helper(start);
  if (!process) return wrong(Reason::no_process, process.error());
  words->started();
  ends->listener = Fd{};
  auto info = nbd::shake_hands(ends->connection.get());
  if (!info) {
    process->await_end(std::chrono::milliseconds{500});  // its last words
    return explained(words->last_line(), info.error());
  }
  if (!info->flushes || !info->fua || (!config.read_only && (info->read_only || !info->zeroes || !info->trims)))
    return wrong(Reason::qemu_nbd_lacks);
  if (info->bytes < 512) return wrong(Reason::too_small_inside);
  return NbdServer{config.path, std::move(*process), std::move(*words), std::move(ends->connection), *info};
}

}  // namespace trapline::monitor
