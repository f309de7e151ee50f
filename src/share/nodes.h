// What a guest has names for: a tree of nodes below the shared folder, one for each name that a fid stands at or has
// walked through. A node holds an O_PATH descriptor, or can get one again from its parent: descriptors are few, names
// are many.
//
// Nothing here follows a symbolic link or leaves the folder. A name is one component, opened from its parent's
// descriptor with O_NOFOLLOW (and RESOLVE_BENEATH where the kernel has openat2); a node that is opened again must be the
// same file as before. So a path never exists as a string, and there is nothing to race for.
//
// One thread at a time, by a lock of the caller's. Errors are errno values.
#pragma once

#include <sys/stat.h>

#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace trapline::share {

struct Identity {
  u64 device = 0, inode = 0;
  bool operator==(const Identity&) const = default;
  static Identity of(const struct stat& st) { return {st.st_dev, st.st_ino}; }
};

struct Node {
  Node* parent = nullptr;  // holds a use of it; null: the root, or `gone`
  std::string name;
  Identity identity;
  u32 type = 0;   // S_IFMT bits
  u32 users = 0;  // fids and children
  u32 pins = 0;   // who needs `fd` to stay
  int fd = -1;    // O_PATH
  bool gone = false;
  std::list<Node*>::iterator age;  // in Nodes::open_, while there is an fd
  bool is_directory() const { return S_ISDIR(type); }
};

// Lets go of a lock that the caller holds, as long as this lives: for what may take a while.
class Outside {
 public:
  explicit Outside(std::mutex& held) : held_{held} { held_.unlock(); }
  ~Outside() { held_.lock(); }
  Outside(const Outside&) = delete;

 private:
  std::mutex& held_;
};

class Nodes;

// A use of a node.
class NodeUse {
 public:
  NodeUse(Nodes& nodes, Node& node);  // one more
  NodeUse(NodeUse&& o) noexcept : nodes_{o.nodes_}, node_{std::exchange(o.node_, nullptr)} {}
  NodeUse& operator=(NodeUse&& o) noexcept {
    std::swap(nodes_, o.nodes_);
    std::swap(node_, o.node_);
    return *this;
  }
  ~NodeUse();
  Node& node() const { return *node_; }

 private:
  Nodes* nodes_;
  Node* node_;
};

// A node's descriptor, which stays open as long as this lives.
class Pin {
 public:
  Pin(Nodes& nodes, Node& node) : use_{std::in_place, nodes, node} { node.pins++; }
  Pin(Pin&& o) noexcept : use_{std::exchange(o.use_, std::nullopt)} {}
  Pin& operator=(Pin&& o) noexcept {
    std::swap(use_, o.use_);
    return *this;
  }
  ~Pin() {
    if (use_) use_->node().pins--;
  }
  int fd() const { return use_->node().fd; }

 private:
  std::optional<NodeUse> use_;
};

class Nodes {
 public:
  static constexpr std::size_t kMostNodes = std::size_t{1} << 20;

  // `root` is the folder and stays the caller's. At most `most_open` nodes keep descriptors (16 or more).
  Nodes(int root, std::size_t most_open);
  ~Nodes();
  Nodes(const Nodes&) = delete;

  Node& root() { return root_; }
  // One name further down, ".." one up (the root's is the root). A use of the node is the caller's.
  Result<Node*, int> walk(Node& directory, std::string_view name);
  void use(Node& node) { node.users++; }
  void release(Node& node);  // gives a use back

  Result<Pin, int> open(Node& node);
  Result<struct stat, int> stat(Node& node);
  // A descriptor to read or write with, of a regular file or a directory; never touches a device, a pipe or a socket.
  // The caller closes it, keeps a use of the node, and holds `lock`, which is let go for the time that opening takes.
  Result<int, int> open_file(Node& node, int flags, std::mutex& lock);
  // A path for calls that know no descriptors: /proc/self/fd/N of a pinned node. Empty: there is no /proc.
  std::string magic_path(const Pin& pin) const;
  int proc() const { return proc_; }  // /proc/self/fd, or -1

  // The name is not there any more, or is another file's now.
  void forget(Node& directory, std::string_view name);
  // Unless the name has become another node's meanwhile.
  void forget(Node& directory, std::string_view name, const Node& node);
  Node* find(Node& directory, std::string_view name);  // null: not known
  // Descriptors of files without a name that nobody uses any more; closing the last of a file frees its space, which
  // may take a while.
  std::vector<int> take_unused() { return std::exchange(unused_, {}); }
  void moved(Node& from, std::string_view old_name, Node& to, std::string_view new_name);

  std::size_t count() const { return names_.size(); }
  std::size_t open_count() const { return open_.size(); }

 private:
  struct Key {
    const Node* parent;
    std::string name;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Key& k) const {
      return std::hash<std::string>{}(k.name) ^ (reinterpret_cast<std::uintptr_t>(k.parent) * 0x9e3779b97f4a7c15u);
    }
  };

  int open_child(int directory, const char* name, int flags) const;
  Result<Node*, int> make(Node& directory, std::string_view name, const struct stat& st);
  void detach(Node& node);
  void keep(Node& node, int fd);
  void shed();

  Node root_;
  std::size_t most_open_;
  int proc_ = -1;
  bool openat2_ = true;
  std::unordered_map<Key, Node*, Hash> names_;
  std::vector<int> unused_;
  std::list<Node*> open_;  // the root is not in it; the longest unused first
};

inline NodeUse::NodeUse(Nodes& nodes, Node& node) : nodes_{&nodes}, node_{&node} { nodes.use(node); }
inline NodeUse::~NodeUse() {
  if (node_) nodes_->release(*node_);
}

}  // namespace trapline::share
