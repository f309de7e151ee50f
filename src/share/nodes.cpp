#include "share/nodes.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

namespace trapline::share {

namespace {

constexpr int kPathFlags = O_PATH | O_NOFOLLOW | O_CLOEXEC;

int openat2(int directory, const char* name, int flags) {
  open_how how{};
  how.flags = static_cast<unsigned>(flags);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(::syscall(SYS_openat2, directory, name, &how, sizeof how));
}

}  // namespace

Nodes::Nodes(int root, std::size_t most_open) : most_open_{most_open} {
  root_.fd = root;
  root_.users = 1;
  struct stat st {};
  ::fstat(root, &st);
  root_.identity = Identity::of(st);
  root_.type = st.st_mode & S_IFMT;
  proc_ = ::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
  // Kernels before 5.6 lack it, and a container's profile that does not know it refuses it.
  const int probe = openat2(root, ".", O_PATH | O_CLOEXEC);
  openat2_ = probe >= 0;
  if (probe >= 0) ::close(probe);
}

Nodes::~Nodes() {
  for (Node* node : open_) ::close(node->fd);
  for (const int fd : unused_) ::close(fd);
  for (auto& [key, node] : names_) delete node;
  if (proc_ >= 0) ::close(proc_);
}

int Nodes::open_child(int directory, const char* name, int flags) const {
  return openat2_ ? openat2(directory, name, flags) : ::openat(directory, name, flags);
}

Result<Node*, int> Nodes::walk(Node& directory, std::string_view name) {
  if (!directory.is_directory()) return Err{ENOTDIR};
  if (name == "..") {
    if (directory.gone) return Err{ENOENT};
    Node& up = directory.parent ? *directory.parent : root_;
    use(up);
    return &up;
  }
  auto pin = open(directory);
  if (!pin) return Err{pin.error()};
  struct stat st {};
  const std::string text{name};
  if (::fstatat(pin->fd(), text.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) forget(directory, name);
    return Err{errno};
  }
  return make(directory, name, st);
}

Result<Node*, int> Nodes::make(Node& directory, std::string_view name, const struct stat& st) {
  Key key{&directory, std::string{name}};
  if (const auto known = names_.find(key); known != names_.end()) {
    Node& node = *known->second;
    if (node.identity == Identity::of(st) && node.type == (st.st_mode & S_IFMT)) {
      use(node);
      return &node;
    }
    detach(node);
  }
  if (names_.size() >= kMostNodes) return Err{ENOMEM};
  Node* node = new Node;
  node->parent = &directory;
  node->name = key.name;
  node->identity = Identity::of(st);
  node->type = st.st_mode & S_IFMT;
  node->users = 1;
  use(directory);
  names_.emplace(std::move(key), node);
  return node;
}

void Nodes::release(Node& node) {
  Node* at = &node;
  while (at != &root_ && --at->users == 0) {
    Node* parent = at->parent;
    if (parent) names_.erase({parent, at->name});
    if (at->fd >= 0) {
      open_.erase(at->age);
      if (at->gone)
        unused_.push_back(at->fd);
      else
        ::close(at->fd);
    }
    delete at;
    if (!parent) return;
    at = parent;
  }
}

// It keeps its descriptor while it has one: a file that is unlinked lives on.
void Nodes::detach(Node& node) {
  Node* parent = node.parent;
  if (!parent) return;
  names_.erase({parent, node.name});
  node.parent = nullptr;
  node.gone = true;
  release(*parent);
}

void Nodes::forget(Node& directory, std::string_view name) {
  if (Node* known = find(directory, name)) detach(*known);
}

void Nodes::forget(Node& directory, std::string_view name, const Node& node) {
  if (Node* known = find(directory, name); known == &node) detach(*known);
}

Node* Nodes::find(Node& directory, std::string_view name) {
  const auto known = names_.find({&directory, std::string{name}});
  return known == names_.end() ? nullptr : known->second;
}

void Nodes::moved(Node& from, std::string_view old_name, Node& to, std::string_view new_name) {
  if (&from == &to && old_name == new_name) return;
  const auto known = names_.find({&from, std::string{old_name}});
  Node* node = known == names_.end() ? nullptr : known->second;
  if (const auto there = names_.find({&to, std::string{new_name}}); there != names_.end()) {
    // Two names of one file: rename(2) does nothing then.
    if (node && there->second->identity == node->identity && !node->is_directory()) return;
    detach(*there->second);
  }
  if (!node) return;
  // The host may have moved `to` out of `node` without our knowing; a tree with a ring in it would have no root.
  for (Node* at = &to; at; at = at->parent)
    if (at == node) return detach(*node);
  use(to);
  names_.erase({&from, node->name});
  node->parent = &to;
  node->name = std::string{new_name};
  names_.emplace(Key{&to, node->name}, node);
  release(from);
}

void Nodes::keep(Node& node, int fd) {
  node.fd = fd;
  node.age = open_.insert(open_.end(), &node);
}

void Nodes::shed() {
  for (auto at = open_.begin(); open_.size() >= most_open_ && at != open_.end();) {
    Node& node = **at;
    ++at;
    // What has lost its name lives by its descriptor alone.
    if (node.pins > 0 || node.gone) continue;
    open_.erase(node.age);
    ::close(std::exchange(node.fd, -1));
  }
}

Result<Pin, int> Nodes::open(Node& node) {
  if (node.fd >= 0) {
    if (&node != &root_) open_.splice(open_.end(), open_, node.age);
    return Pin{*this, node};
  }
  std::vector<Node*> missing;
  Node* at = &node;
  for (; at->fd < 0; at = at->parent) {
    if (!at->parent) return Err{ENOENT};
    missing.push_back(at);
  }
  Pin held{*this, *at};
  for (auto next = missing.rbegin(); next != missing.rend(); ++next) {
    Node& child = **next;
    shed();
    const int fd = open_child(held.fd(), child.name.c_str(), kPathFlags);
    if (fd < 0) return Err{errno};
    struct stat st {};
    if (::fstat(fd, &st) != 0 || Identity::of(st) != child.identity || (st.st_mode & S_IFMT) != child.type) {
      ::close(fd);
      return Err{ENOENT};
    }
    keep(child, fd);
    held = Pin{*this, child};
  }
  return held;
}

Result<struct stat, int> Nodes::stat(Node& node) {
  struct stat st {};
  if (node.fd >= 0 || !node.parent) {
    auto pin = open(node);
    if (!pin) return Err{pin.error()};
    if (::fstat(pin->fd(), &st) != 0) return Err{errno};
    return st;
  }
  auto pin = open(*node.parent);
  if (!pin) return Err{pin.error()};
  if (::fstatat(pin->fd(), node.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return Err{errno};
  if (Identity::of(st) != node.identity) return Err{ENOENT};
  return st;
}

Result<int, int> Nodes::open_file(Node& node, int flags, std::mutex& lock) {
  if (S_ISLNK(node.type)) return Err{ELOOP};
  if (!S_ISREG(node.type) && !S_ISDIR(node.type)) return Err{ENXIO};
  constexpr int kAlways = O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  if (proc_ >= 0) {  // the very file that was looked at
    auto pin = open(node);
    if (!pin) return Err{pin.error()};
    const Outside outside{lock};
    const int fd = ::openat(proc_, std::to_string(pin->fd()).c_str(), flags | kAlways);
    if (fd < 0) return Err{errno};
    return fd;
  }
  if (!node.parent) {
    const int fd = ::openat(node.fd, ".", flags | kAlways);
    if (fd < 0) return Err{errno};
    return fd;
  }
  auto pin = open(*node.parent);
  if (!pin) return Err{pin.error()};
  const int fd = open_child(pin->fd(), node.name.c_str(), (flags & ~O_TRUNC) | O_NOFOLLOW | kAlways);
  if (fd < 0) return Err{errno};
  struct stat st {};
  if (::fstat(fd, &st) != 0 || Identity::of(st) != node.identity || (st.st_mode & S_IFMT) != node.type ||
      ((flags & O_TRUNC) && ::ftruncate(fd, 0) != 0)) {
    ::close(fd);
    return Err{ENOENT};
  }
  return fd;
}

std::string Nodes::magic_path(const Pin& pin) const {
  return proc_ >= 0 ? "/proc/self/fd/" + std::to_string(pin.fd()) : std::string{};
}

}  // namespace trapline::share
