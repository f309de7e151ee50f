#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "share/server.h"

namespace trapline::share {

namespace {

constexpr u64 kLongestAttribute = 64 * KiB;  // XATTR_SIZE_MAX
constexpr int kFchmodat2 = 452;              // Linux 6.6

void write_time(Writer& out, const timespec& t) {
  out.quad(static_cast<u64>(t.tv_sec));
  out.quad(static_cast<u64>(t.tv_nsec));
}

// A guest's attributes are its users' own: capabilities, labels and access lists are the host's.
bool is_users(std::string_view name) { return name.starts_with("user.") && name.find('\0') == std::string_view::npos; }

// A list of names that end with zeros, without those that are not shown.
std::vector<u8> shown_names(const std::vector<u8>& all) {
  std::vector<u8> shown;
  for (std::size_t at = 0; at < all.size();) {
    const char* text = reinterpret_cast<const char*>(all.data() + at);
    const std::string_view name{text, ::strnlen(text, all.size() - at)};
    if (is_users(name))
      shown.insert(shown.end(), all.begin() + static_cast<std::ptrdiff_t>(at),
                   all.begin() + static_cast<std::ptrdiff_t>(std::min(at + name.size() + 1, all.size())));
    at += name.size() + 1;
  }
  return shown;
}

}  // namespace

Server::Status Server::getattr(Reader& in, Writer& out) {
  const u32 number = in.word();
  in.quad();  // which ones: all are cheap
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  struct stat st {};
  if (fid->file) {
    if (::fstat(fid->file->fd, &st) != 0) return errno;
  } else {
    auto found = nodes_.stat(*fid->node);
    if (!found) return found.error();
    st = *found;
  }
  out.quad(kGetattrBasic);
  write_qid(out, st);
  out.word(st.st_mode);
  out.word(st.st_uid);
  out.word(st.st_gid);
  out.quad(st.st_nlink);
  out.quad(st.st_rdev);
  out.quad(static_cast<u64>(st.st_size));
  out.quad(static_cast<u64>(st.st_blksize));
  out.quad(static_cast<u64>(st.st_blocks));
  write_time(out, st.st_atim);
  write_time(out, st.st_mtim);
  write_time(out, st.st_ctim);
  write_time(out, {});  // birth
  out.quad(0);          // generation
  out.quad(0);          // data version
  return 0;
}

Server::Status Server::set_mode(const Fid& fid, u32 mode) {
  const u32 allowed = allowed_mode(mode, fid.node->is_directory());
  if (S_ISLNK(fid.node->type)) return EOPNOTSUPP;
  if (const FileRef file = fid.file) {
    const Outside outside{lock_};
    return ::fchmod(file->fd, allowed) == 0 ? 0 : errno;
  }
  auto pin = nodes_.open(*fid.node);
  if (!pin) return pin.error();
  const Outside outside{lock_};
  if (nodes_.proc() >= 0)
    return ::fchmodat(nodes_.proc(), std::to_string(pin->fd()).c_str(), allowed, 0) == 0 ? 0 : errno;
  return ::syscall(kFchmodat2, pin->fd(), "", allowed, AT_EMPTY_PATH) == 0 ? 0 : errno == ENOSYS ? EOPNOTSUPP : errno;
}

Server::Status Server::set_size(const Fid& fid, u64 size) {
  if (size > static_cast<u64>(LLONG_MAX)) return EFBIG;
  if (const FileRef file = fid.file) {
    const Outside outside{lock_};
    if (::ftruncate(file->fd, static_cast<off_t>(size)) == 0) return 0;
  }
  if (fid.node->is_directory()) return EISDIR;
  auto file = nodes_.open_file(*fid.node, O_WRONLY, lock_);
  if (!file) return file.error();
  const Outside outside{lock_};
  const Status status = ::ftruncate(*file, static_cast<off_t>(size)) == 0 ? 0 : errno;
  ::close(*file);
  return status;
}

Server::Status Server::set_times(const Fid& fid, u32 valid, const timespec (&given)[2]) {
  const auto choose = [&](u32 changed, u32 set, const timespec& time) -> timespec {
    return !(valid & changed) ? timespec{0, UTIME_OMIT} : valid & set ? time : timespec{0, UTIME_NOW};
  };
  const timespec times[2] = {choose(setattr_bit::atime, setattr_bit::atime_set, given[0]),
                             choose(setattr_bit::mtime, setattr_bit::mtime_set, given[1])};
  auto pin = nodes_.open(*fid.node);
  if (!pin) return pin.error();
  const Outside outside{lock_};
  if (::utimensat(pin->fd(), "", times, AT_EMPTY_PATH) == 0) return 0;
  if (errno != EINVAL || nodes_.proc() < 0) return errno;  // Linux before 5.8
  return ::utimensat(nodes_.proc(), std::to_string(pin->fd()).c_str(), times, 0) == 0 ? 0 : errno;
}

Server::Status Server::setattr(Reader& in) {
  const u32 number = in.word(), valid = in.word(), mode = in.word(), uid = in.word(), gid = in.word();
  const u64 size = in.quad();
  timespec times[2];
  for (timespec& t : times) {
    t.tv_sec = static_cast<time_t>(in.quad());
    t.tv_nsec = static_cast<long>(in.quad());
  }
  if (!in.complete()) return EPROTO;
  if (options_.readonly) return EROFS;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  for (const timespec& t : times)
    if (t.tv_nsec < 0 || t.tv_nsec >= 1'000'000'000) return EINVAL;
  if (valid & (setattr_bit::uid | setattr_bit::gid)) {
    auto pin = nodes_.open(*fid->node);
    if (!pin) return pin.error();
    const uid_t user = valid & setattr_bit::uid ? uid : static_cast<uid_t>(-1);
    const gid_t group = valid & setattr_bit::gid ? gid : static_cast<gid_t>(-1);
    const Outside outside{lock_};
    if (::fchownat(pin->fd(), "", user, group, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) return errno;
  }
  Status status = 0;
  if (valid & setattr_bit::mode) status = set_mode(*fid, mode);
  if (!status && (valid & setattr_bit::size)) status = set_size(*fid, size);
  if (!status && (valid & (setattr_bit::atime | setattr_bit::mtime))) status = set_times(*fid, valid, times);
  return status;
}

Server::Status Server::statfs(Reader& in, Writer& out) {
  const u32 number = in.word();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  auto pin = nodes_.open(*fid->node);
  if (!pin) return pin.error();
  struct statfs s {};
  {
    const Outside outside{lock_};
    if (::fstatfs(pin->fd(), &s) != 0) return errno;
  }
  u64 id = 0;
  static_assert(sizeof s.f_fsid == sizeof id);
  std::memcpy(&id, &s.f_fsid, sizeof id);
  out.word(kStatfsMagic);
  out.word(static_cast<u32>(s.f_bsize));
  for (const u64 value : {u64{s.f_blocks}, u64{s.f_bfree}, u64{s.f_bavail}, u64{s.f_files}, u64{s.f_ffree}, id})
    out.quad(value);
  out.word(static_cast<u32>(s.f_namelen));
  return 0;
}

Server::Status Server::readlink(Reader& in, Writer& out) {
  const u32 number = in.word();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  if (!S_ISLNK(fid->node->type)) return EINVAL;
  auto pin = nodes_.open(*fid->node);
  if (!pin) return pin.error();
  char target[PATH_MAX];
  const ssize_t length = ::readlinkat(pin->fd(), "", target, sizeof target);
  if (length < 0) return errno;
  out.string({target, static_cast<std::size_t>(length)});
  return 0;
}

// The new fid reads the attribute's value, or the list of names.
Server::Status Server::xattrwalk(Reader& in, Writer& out) {
  const u32 number = in.word(), target = in.word();
  const std::string name{in.string()};
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  if (!name.empty() && !is_users(name)) return EOPNOTSUPP;
  auto pin = nodes_.open(*fid->node);
  if (!pin) return pin.error();
  const std::string path = nodes_.magic_path(*pin);
  if (path.empty()) return EOPNOTSUPP;
  std::vector<u8> value(kLongestAttribute);
  const ssize_t length = name.empty() ? ::listxattr(path.c_str(), reinterpret_cast<char*>(value.data()), value.size())
                                      : ::getxattr(path.c_str(), name.c_str(), value.data(), value.size());
  if (length < 0) return errno;
  value.resize(static_cast<std::size_t>(length));
  if (name.empty()) value = shown_names(value);
  value.shrink_to_fit();
  nodes_.use(*fid->node);
  auto made = std::make_shared<Fid>(nodes_, *fid->node, fid->user);
  made->attribute = std::make_unique<Attribute>();
  made->attribute->value = std::move(value);
  out.quad(made->attribute->value.size());
  return add(target, std::move(made));
}

Server::Status Server::xattrcreate(Reader& in) {
  const u32 number = in.word();
  const std::string name{in.string()};
  const u64 size = in.quad();
  const u32 flags = in.word();
  if (!in.complete()) return EPROTO;
  if (options_.readonly) return EROFS;
  const FidRef fid = find(number);
  if (!fid || fid->file || fid->attribute) return EBADF;
  if (!is_users(name)) return EPERM;
  if (size > kLongestAttribute) return E2BIG;
  if (flags & ~u32{XATTR_CREATE | XATTR_REPLACE}) return EINVAL;
  auto attribute = std::make_unique<Attribute>();
  attribute->name = name;
  attribute->value.resize(size);
  attribute->flags = static_cast<int>(flags);
  attribute->written = true;
  fid->attribute = std::move(attribute);
  return 0;
}

// Of Txattrcreate, once its fid is clunked. An empty value takes the attribute away, as Linux's client means it.
Server::Status Server::store(const Fid& fid) {
  const Attribute& a = *fid.attribute;
  if (a.filled != a.value.size()) return EINVAL;
  auto pin = nodes_.open(*fid.node);
  if (!pin) return pin.error();
  const std::string path = nodes_.magic_path(*pin);
  if (path.empty()) return EOPNOTSUPP;
  const Outside outside{lock_};
  const int done = a.value.empty() ? ::removexattr(path.c_str(), a.name.c_str())
                                   : ::setxattr(path.c_str(), a.name.c_str(), a.value.data(), a.value.size(), a.flags);
  return done == 0 ? 0 : errno;
}

}  // namespace trapline::share
