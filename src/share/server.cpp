#include "share/server.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace trapline::share {

namespace {

constexpr std::size_t kMostFids = std::size_t{1} << 20;
constexpr u32 kLeastMessage = 4096;

bool may_give_away() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  return ::syscall(SYS_capget, &header, data) == 0 && (data[0].effective & 1u << CAP_CHOWN) != 0;
}

void put_header(std::span<u8> reply, std::size_t size, u8 type, u16 tag) {
  Writer out{reply};
  out.word(static_cast<u32>(size));
  out.byte(type);
  out.half(tag);
}

}  // namespace

int check_name(std::string_view name) {
  if (name.empty() || name == "." || name == "..") return EINVAL;
  if (name.size() > kLongestName) return ENAMETOOLONG;
  if (name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos) return EINVAL;
  return 0;
}

u32 allowed_mode(u32 mode, bool directory) { return mode & (directory ? S_ISGID | S_ISVTX | 0777u : S_ISVTX | 0777u); }

Server::Server(int folder, ServerOptions options)
    : options_{options},
      gives_away_{may_give_away()},
      message_{options.most_message},
      nodes_{folder, std::max<std::size_t>(options.most_open, 16)} {}

std::size_t Server::serve(std::span<const u8> request, std::span<u8> reply) {
  if (reply.size() < kHeader + sizeof(u32)) return 0;
  Reader in{request};
  const u32 size = in.word();
  const u8 type = in.byte();
  const u16 tag = in.half();
  Writer out{reply};
  out.skip(kHeader);
  Status status = EPROTO;
  {
    const std::lock_guard guard{lock_};
    if (request.size() >= kHeader && size == request.size() && size <= message_)
      status = dispatch(static_cast<Message>(type), in, out);
    if (const auto unused = nodes_.take_unused(); !unused.empty()) {
      const Outside outside{lock_};
      for (const int fd : unused) ::close(fd);
    }
  }
  if (status == 0 && !out.good()) status = ENOBUFS;
  if (status == 0) {
    put_header(reply, out.used(), static_cast<u8>(type + 1), tag);
    return out.used();
  }
  Writer error{reply};
  error.skip(kHeader);
  error.word(static_cast<u32>(status));
  put_header(reply, error.used(), static_cast<u8>(Message::lerror) + 1, tag);
  return error.used();
}

Server::Status Server::dispatch(Message type, Reader& in, Writer& out) {
  switch (type) {
    case Message::version:
      return version(in, out);
    case Message::attach:
      return attach(in, out);
    case Message::walk:
      return walk(in, out);
    case Message::clunk:
      return clunk(in);
    case Message::flush:
      return 0;  // who calls serve() has seen to it that what it names is done
    case Message::lopen:
      return lopen(in, out);
    case Message::lcreate:
      return lcreate(in, out);
    case Message::read:
      return read(in, out);
    case Message::write:
      return write(in, out);
    case Message::readdir:
      return readdir(in, out);
    case Message::fsync:
      return fsync(in);
    case Message::lock:
      return lock(in, out);
    case Message::getlock:
      return getlock(in, out);
    case Message::mkdir:
      return mkdir(in, out);
    case Message::symlink:
      return symlink(in, out);
    case Message::mknod:
      return mknod(in, out);
    case Message::link:
      return link(in);
    case Message::rename:
      return rename(in);
    case Message::renameat:
      return renameat(in);
    case Message::unlinkat:
      return unlinkat(in);
    case Message::remove:
      return remove(in);
    case Message::getattr:
      return getattr(in, out);
    case Message::setattr:
      return setattr(in);
    case Message::statfs:
      return statfs(in, out);
    case Message::readlink:
      return readlink(in, out);
    case Message::xattrwalk:
      return xattrwalk(in, out);
    case Message::xattrcreate:
      return xattrcreate(in);
    default:
      return EOPNOTSUPP;  // Tauth too: nobody is asked who they are
  }
}

Server::FidRef Server::find(u32 fid) const {
  const auto known = fids_.find(fid);
  return known == fids_.end() ? nullptr : known->second;
}

Server::Status Server::add(u32 fid, FidRef made) {
  if (fids_.size() >= kMostFids || fid == kNoFid) return EMFILE;
  return fids_.emplace(fid, std::move(made)).second ? 0 : EBADF;
}

Server::Status Server::drop(u32 fid) {
  const auto known = fids_.find(fid);
  if (known == fids_.end()) return EBADF;
  const FidRef gone = std::move(known->second);
  fids_.erase(known);
  const Status status = gone->attribute && gone->attribute->written ? store(*gone) : 0;
  if (FileRef file = std::move(gone->file)) {
    const Outside outside{lock_};
    file.reset();
  }
  return status;
}

void Server::drop_all() {
  const auto gone = std::exchange(fids_, {});
  std::vector<FileRef> files;
  for (const auto& [number, fid] : gone)
    if (fid->file) files.push_back(std::move(fid->file));
  const Outside outside{lock_};
  files.clear();
}

// Begins a session: what the last one held is let go.
Server::Status Server::version(Reader& in, Writer& out) {
  const u32 most = in.word();
  const std::string_view name = in.string();
  if (!in.complete() || most < kLeastMessage) return EPROTO;
  drop_all();
  message_ = std::min(most, options_.most_message);
  out.word(message_);
  out.string(name == "9P2000.L" ? "9P2000.L" : "unknown");
  return 0;
}

Server::Status Server::attach(Reader& in, Writer& out) {
  const u32 fid = in.word(), auth = in.word();
  in.string(), in.string();  // a user's name, and which tree: there is one
  const u32 user = in.word();
  if (!in.complete()) return EPROTO;
  if (auth != kNoFid) return EOPNOTSUPP;
  auto st = nodes_.stat(nodes_.root());
  if (!st) return st.error();
  nodes_.use(nodes_.root());
  if (const Status status = add(fid, std::make_shared<Fid>(nodes_, nodes_.root(), user))) return status;
  write_qid(out, *st);
  return 0;
}

Server::Status Server::walk(Reader& in, Writer& out) {
  const u32 from = in.word(), to = in.word();
  const u16 count = in.half();
  if (count > kMostWalk) return EINVAL;
  std::string_view names[kMostWalk];
  for (unsigned i = 0; i < count; i++) names[i] = in.string();
  if (!in.complete()) return EPROTO;
  const FidRef start = find(from);
  if (!start || start->attribute) return EBADF;
  Node* at = start->node;
  nodes_.use(*at);
  Writer counted = out;
  out.half(0);
  for (unsigned i = 0; i < count; i++) {
    const Status bad = names[i] == ".." ? 0 : check_name(names[i]);
    auto next = bad ? Result<Node*, int>{Err{bad}} : nodes_.walk(*at, names[i]);
    nodes_.release(*at);
    // The first name that is not there is an error; a later one ends the list, and there is no new fid.
    if (!next) return i == 0 ? next.error() : (counted.half(static_cast<u16>(i)), 0);
    at = *next;
    const u8 type = at->is_directory() ? qid_type::directory : S_ISLNK(at->type) ? qid_type::symlink : qid_type::file;
    write_qid(out, type, 0, at->identity);
  }
  counted.half(count);
  auto made = std::make_shared<Fid>(nodes_, *at, start->user);
  if (from != to) return add(to, std::move(made));
  if (start->file) return EBUSY;
  fids_.at(from) = std::move(made);
  return 0;
}

Server::Status Server::clunk(Reader& in) {
  const u32 fid = in.word();
  return in.complete() ? drop(fid) : EPROTO;
}

void Server::write_qid(Writer& out, const struct stat& st) {
  const u8 type = S_ISDIR(st.st_mode) ? qid_type::directory : S_ISLNK(st.st_mode) ? qid_type::symlink : qid_type::file;
  write_qid(out, type, 0, Identity::of(st));
}

void Server::write_qid(Writer& out, u8 type, u32 version, Identity identity) {
  out.byte(type);
  out.word(version);
  out.quad(qid_path(identity));
}

// Inode numbers of several file systems in one space: the file system's number, in the order of their appearance, in
// the highest byte of what is nearly always zero there. The folder's own keeps its numbers.
u64 Server::qid_path(Identity identity) {
  auto at = std::find(devices_.begin(), devices_.end(), identity.device);
  if (at == devices_.end() && devices_.size() < 256) at = devices_.insert(devices_.end(), identity.device);
  return identity.inode ^ static_cast<u64>(std::min<std::ptrdiff_t>(at - devices_.begin(), 255)) << 56;
}

}  // namespace trapline::share
