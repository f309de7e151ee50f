#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "share/server.h"

namespace trapline::share {

namespace {
constexpr u32 kNobody = ~u32{0};
}

// What was just made, to whom the guest says it belongs. Only a server with that power can, and for others the host's
// rule holds: it is the server's user's.
void Server::give(int directory, const std::string& name, u32 user, u32 group) const {
  if (!gives_away_ || (user == kNobody && group == kNobody)) return;
  // A failure leaves the file with this process's user, whose power made it.
  if (::fchownat(directory, name.c_str(), user, group, AT_SYMLINK_NOFOLLOW) != 0) return;
}

// By `make_it`, a system call that gets the directory's descriptor.
template <class Make>
Server::Status Server::make(const Fid& in, const std::string& name, u32 gid, Writer& out, Make make_it) {
  auto pin = nodes_.open(*in.node);
  if (!pin) return pin.error();
  struct stat st {};
  {
    const Outside outside{lock_};
    if (make_it(pin->fd()) != 0) return errno;
    give(pin->fd(), name, in.user, gid);
    if (::fstatat(pin->fd(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  }
  write_qid(out, st);
  return 0;
}

Server::Status Server::mkdir(Reader& in, Writer& out) {
  const u32 number = in.word();
  const std::string name{in.string()};
  const u32 mode = in.word(), gid = in.word();
  if (!in.complete()) return EPROTO;
  if (options_.readonly) return EROFS;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  if (const Status bad = check_name(name)) return bad;
  return make(*fid, name, gid, out, [&](int at) { return ::mkdirat(at, name.c_str(), allowed_mode(mode, true)); });
}

// The target is text: the guest resolves it in its own name space.
Server::Status Server::symlink(Reader& in, Writer& out) {
  const u32 number = in.word();
  const std::string name{in.string()}, target{in.string()};
  const u32 gid = in.word();
  if (!in.complete()) return EPROTO;
  if (options_.readonly) return EROFS;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  if (const Status bad = check_name(name)) return bad;
  if (target.empty() || target.find('\0') != std::string::npos) return EINVAL;
  return make(*fid, name, gid, out, [&](int at) { return ::symlinkat(target.c_str(), at, name.c_str()); });
}

// Pipes, sockets and files. A device node of the guest would be one of the host's devices.
Server::Status Server::mknod(Reader& in, Writer& out) {
  const u32 number = in.word();
  const std::string name{in.string()};
  const u32 mode = in.word();
  in.word(), in.word();  // major, minor
  const u32 gid = in.word();
  if (!in.complete()) return EPROTO;
  if (options_.readonly) return EROFS;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  if (const Status bad = check_name(name)) return bad;
  const u32 type = mode & S_IFMT;
  if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK) return EPERM;
  return make(*fid, name, gid, out,
              [&](int at) { return ::mknodat(at, name.c_str(), type | allowed_mode(mode, false), 0); });
}

Server::Status Server::link(Reader& in) {
  const u32 directory = in.word(), number = in.word();
  const std::string name{in.string()};
  if (!in.complete()) return EPROTO;
  if (options_.readonly) return EROFS;
  const FidRef to = find(directory), fid = find(number);
  if (!to || !fid) return EBADF;
  if (const Status bad = check_name(name)) return bad;
  if (!fid->node->parent) return fid->node->gone ? ENOENT : EPERM;
  auto from = nodes_.open(*fid->node->parent);
  if (!from) return from.error();
  auto there = nodes_.open(*to->node);
  if (!there) return there.error();
  const std::string old_name = fid->node->name;
  const Outside outside{lock_};
  return ::linkat(from->fd(), old_name.c_str(), there->fd(), name.c_str(), 0) == 0 ? 0 : errno;
}

// Under the lock for all of it: requests that come meanwhile find the tree as the host has it.
Server::Status Server::move(Node& from, std::string_view old_name, Node& to, std::string_view new_name) {
  if (options_.readonly) return EROFS;
  if (const Status bad = check_name(old_name)) return bad;
  if (const Status bad = check_name(new_name)) return bad;
  auto source = nodes_.open(from);
  if (!source) return source.error();
  auto target = nodes_.open(to);
  if (!target) return target.error();
  if (::renameat(source->fd(), std::string{old_name}.c_str(), target->fd(), std::string{new_name}.c_str()) != 0)
    return errno;
  nodes_.moved(from, old_name, to, new_name);
  return 0;
}

Server::Status Server::rename(Reader& in) {
  const u32 number = in.word(), directory = in.word();
  const std::string_view name = in.string();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number), to = find(directory);
  if (!fid || !to) return EBADF;
  if (!fid->node->parent) return fid->node->gone ? ENOENT : EBUSY;
  const std::string old_name = fid->node->name;
  return move(*fid->node->parent, old_name, *to->node, name);
}

Server::Status Server::renameat(Reader& in) {
  const u32 from = in.word();
  const std::string_view old_name = in.string();
  const u32 to = in.word();
  const std::string_view new_name = in.string();
  if (!in.complete()) return EPROTO;
  const FidRef source = find(from), target = find(to);
  if (!source || !target) return EBADF;
  return move(*source->node, old_name, *target->node, new_name);
}

Server::Status Server::unlink(Node& directory, std::string_view name, int flags) {
  if (options_.readonly) return EROFS;
  auto pin = nodes_.open(directory);
  if (!pin) return pin.error();
  const std::string text{name};
  std::optional<NodeUse> known;
  if (Node* node = nodes_.find(directory, name)) known.emplace(nodes_, *node);
  {
    const Outside outside{lock_};
    if (::unlinkat(pin->fd(), text.c_str(), flags) != 0) return errno;
  }
  if (known) nodes_.forget(directory, name, known->node());
  return 0;
}

Server::Status Server::unlinkat(Reader& in) {
  const u32 number = in.word();
  const std::string_view name = in.string();
  const u32 flags = in.word();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  if (const Status bad = check_name(name)) return bad;
  return unlink(*fid->node, name, flags & kRemoveDirectory ? AT_REMOVEDIR : 0);
}

// The fid goes whether the file does or not.
Server::Status Server::remove(Reader& in) {
  const u32 number = in.word();
  if (!in.complete()) return EPROTO;
  const FidRef fid = find(number);
  if (!fid) return EBADF;
  Status status = EBUSY;
  if (Node* parent = fid->node->parent) {
    const NodeUse use{nodes_, *parent};
    const std::string name = fid->node->name;
    status = unlink(*parent, name, fid->node->is_directory() ? AT_REMOVEDIR : 0);
  }
  drop(number);
  return status;
}

}  // namespace trapline::share
