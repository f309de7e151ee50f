#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "share/server.h"

namespace trapline::share {

namespace {

constexpr u64 kNowhere = ~u64{0};  // no directory goes on from there

bool writes(u32 flags) { return (flags & open_bit::access) != O_RDONLY || (flags & open_bit::truncate); }

// The protocol's flags as the host's, without those that say how to create.
int host_flags(u32 flags) {
  int host = static_cast<int>(flags & open_bit::access);
  if (flags & open_bit::truncate) host |= O_TRUNC;
  if (flags & open_bit::append) host |= O_APPEND;
  if (flags & open_bit::directory) host |= O_DIRECTORY;
  if (flags & open_bit::dsync) host |= O_DSYNC;
  if (flags & open_bit::sync) host |= O_SYNC;
  return host;
}

ssize_t whole_write(int fd, std::span<const u8> data, u64 offset) {
  std::size_t done = 0;
  while (done < data.size()) {
    const ssize_t n = ::pwrite(fd, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return done > 0 ? static_cast<ssize_t>(done) : -1;
    done += static_cast<std::size_t>(n);
  }
  return static_cast<ssize_t>(done);
}

}  // namespace

Result<Server::FileRef, int> Server::open(Node& node, u32 flags) {
  if (options_.readonly && writes(flags)) return Err{EROFS};
  if (open_files_ >= options_.most_open) return Err{ENFILE};
  auto fd = nodes_.open_file(node, host_flags(flags), lock_);
  if (!fd) return Err{fd.error()};
  return std::make_shared<File>(*fd, open_files_);
}

Server::Status Server::lopen(Reader& in, Writer& out) {
  const u32 number = in.word(), flags = in.word();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid || fid->attribute) return EBADF;
  if (fid->file) return EBUSY;
  auto file = open(*fid->node, flags);
  if (!file) return file.error();
  struct stat st {};
  if (::fstat((*file)->fd, &st) != 0) return errno;
  if (fid->file || fid->attribute) return EBUSY;  // by another request meanwhile
  fid->file = std::move(*file);
  write_qid(out, st);
  out.word(0);  // whatever fits into a message
  return 0;
}

// The fid of the directory becomes that of the new file.
Server::Status Server::lcreate(Reader& in, Writer& out) {
  const u32 number = in.word();
  const std::string_view name = in.string();
  const u32 flags = in.word(), mode = in.word(), gid = in.word();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid || fid->attribute) return EBADF;
  if (fid->file) return EBUSY;
  if (const Status bad = check_name(name)) return bad;
  auto made = create(*fid, name, flags, mode, gid);
  if (!made) return made.error();
  struct stat st {};
  if (::fstat((*made)->file->fd, &st) != 0) return errno;
  const auto known = fids_.find(number);
  if (known == fids_.end() || known->second != fid) return EBADF;
  known->second = std::move(*made);
  write_qid(out, st);
  out.word(0);
  return 0;
}

// Whatever has the name already is opened as an open would: not by this name, which may lead to a device.
Result<Server::FidRef, int> Server::create(const Fid& in, std::string_view name, u32 flags, u32 mode, u32 gid) {
  if (options_.readonly) return Err{EROFS};
  if (open_files_ >= options_.most_open) return Err{ENFILE};
  auto pin = nodes_.open(*in.node);
  if (!pin) return Err{pin.error()};
  const std::string text{name};
  FileRef file;
  {
    const Outside outside{lock_};
    constexpr int kNew = O_CREAT | O_EXCL | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    const int fd =
        ::openat(pin->fd(), text.c_str(), (host_flags(flags) & ~O_DIRECTORY) | kNew, allowed_mode(mode, false));
    if (fd < 0 && (errno != EEXIST || (flags & open_bit::exclusive))) return Err{errno};
    if (fd >= 0) {
      file = std::make_shared<File>(fd, open_files_);
      give(pin->fd(), text, in.user, gid);
    }
  }
  auto walked = nodes_.walk(*in.node, name);
  if (!walked) return Err{walked.error()};
  auto made = std::make_shared<Fid>(nodes_, **walked, in.user);
  if (!file) {
    auto opened = open(**walked, flags);
    if (!opened) return Err{opened.error()};
    file = std::move(*opened);
  }
  made->file = std::move(file);
  return made;
}

Server::Status Server::read(Reader& in, Writer& out) {
  const u32 number = in.word();
  const u64 offset = in.quad();
  const u32 count = in.word();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid || (!fid->file && !fid->attribute)) return EBADF;
  std::span<u8> room = out.rest(kDataHeader);
  room = room.first(std::min<std::size_t>({room.size(), count, message_ - kHeader - kDataHeader}));
  ssize_t got = 0;
  if (fid->attribute) {
    const auto& value = fid->attribute->value;
    if (offset < value.size()) {
      got = static_cast<ssize_t>(std::min(room.size(), value.size() - offset));
      std::memcpy(room.data(), value.data() + offset, static_cast<std::size_t>(got));
    }
  } else {
    const FileRef file = fid->file;
    const Outside outside{lock_};
    do got = ::pread(file->fd, room.data(), room.size(), static_cast<off_t>(offset));
    while (got < 0 && errno == EINTR);
    if (got < 0) return errno;
  }
  out.word(static_cast<u32>(got));
  out.skip(static_cast<std::size_t>(got));
  return 0;
}

Server::Status Server::write(Reader& in, Writer& out) {
  const u32 number = in.word();
  const u64 offset = in.quad();
  u32 count = in.word();
  const auto data = in.bytes(count);
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  if (Attribute* attribute = fid->attribute.get()) {
    if (!attribute->written || offset != attribute->filled || data.size() > attribute->value.size() - offset)
      return EINVAL;
    std::copy(data.begin(), data.end(), attribute->value.begin() + static_cast<std::ptrdiff_t>(offset));
    attribute->filled += data.size();
    out.word(count);
    return 0;
  }
  const FileRef file = fid->file;
  if (!file) return EBADF;
  if (!data.empty()) {
    const Outside outside{lock_};
    const ssize_t written = whole_write(file->fd, data, offset);
    if (written < 0) return errno;
    count = static_cast<u32>(written);
  }
  out.word(count);
  return 0;
}

// The entries of one getdents64, as far as they fit: false if not all did. `next` is where to go on.
bool Server::entries(const Fid& fid, Writer& data, std::span<const u8> raw, u64& next) {
  for (std::size_t at = 0; at < raw.size();) {
    const auto* entry = reinterpret_cast<const dirent64*>(raw.data() + at);
    const std::string_view name{entry->d_name};
    constexpr std::size_t kFixed = 13 + 8 + 1 + 2;
    if (data.left() < kFixed + name.size()) return false;
    const bool self = name == "." || name == "..";  // what is above the folder is nobody's business
    const u8 type = entry->d_type == DT_DIR   ? qid_type::directory
                    : entry->d_type == DT_LNK ? qid_type::symlink
                                              : qid_type::file;
    const Identity own = fid.node->identity;
    write_qid(data, type, 0, {own.device, self ? own.inode : entry->d_ino});
    next = static_cast<u64>(entry->d_off);
    data.quad(next);
    data.byte(entry->d_type);
    data.string(name);
    at += entry->d_reclen;
  }
  return true;
}

Server::Status Server::readdir(Reader& in, Writer& out) {
  const u32 number = in.word();
  u64 offset = in.quad();
  const u32 count = in.word();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid || !fid->file) return EBADF;
  if (!fid->node->is_directory()) return ENOTDIR;
  const FileRef file = fid->file;
  std::span<u8> room = out.rest(kDataHeader);
  Writer data{room.first(std::min<std::size_t>({room.size(), count, message_ - kHeader - kDataHeader}))};
  alignas(dirent64) std::array<u8, 32 * KiB> raw;
  std::unique_lock listing{file->listing, std::defer_lock};
  for (bool all = true; all;) {
    long got = 0;
    {
      const Outside outside{lock_};
      if (!listing.owns_lock()) listing.lock();
      if (file->position != offset && ::lseek(file->fd, static_cast<off_t>(offset), SEEK_SET) < 0) return errno;
      file->position = kNowhere;
      got = ::syscall(SYS_getdents64, file->fd, raw.data(), std::clamp<std::size_t>(data.left(), KiB, raw.size()));
      if (got < 0 && data.used() == 0) return errno;
    }
    if (got <= 0) break;
    all = entries(*fid, data, {raw.data(), static_cast<std::size_t>(got)}, offset);
    if (all) file->position = offset;
    if (!all && data.used() == 0) return EINVAL;  // not even one fits
  }
  out.word(static_cast<u32>(data.used()));
  out.skip(data.used());
  return 0;
}

Server::Status Server::fsync(Reader& in) {
  const u32 number = in.word();
  const u32 data_only = in.word();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid || !fid->file) return EBADF;
  const FileRef file = fid->file;
  const Outside outside{lock_};
  return (data_only ? ::fdatasync(file->fd) : ::fsync(file->fd)) == 0 ? 0 : errno;
}

// The guest's kernel has settled among its own processes who has a lock before it asks here; processes of the host are
// not told.
Server::Status Server::lock(Reader& in, Writer& out) {
  const u32 number = in.word();
  in.byte(), in.word(), in.quad(), in.quad(), in.word(), in.string();  // type flags start length process client
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid || !fid->file) return EBADF;
  out.byte(kLockSuccess);
  return 0;
}

Server::Status Server::getlock(Reader& in, Writer& out) {
  const u32 number = in.word();
  in.byte();
  const u64 start = in.quad(), length = in.quad();
  const u32 process = in.word();
  const std::string_view client = in.string();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid || !fid->file) return EBADF;
  out.byte(kLockTypeUnlock);
  out.quad(start);
  out.quad(length);
  out.word(process);
  out.string(client);
  return 0;
}

}  // namespace trapline::share
