#include "para/xen/store_tree.h"

#include <algorithm>
#include <charconv>

namespace trapline::para::xen {

namespace {

constexpr std::size_t kMostPath = 3072, kMostComponent = 255;

std::optional<unsigned> domain_of(std::string_view permission) {
  unsigned domain = 0;
  const auto digits = permission.substr(1);
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), domain);
  if (error != std::errc{} || end != digits.end() || domain > 0x7fff) return std::nullopt;
  return domain;
}

// May `domain` do what 'r' or 'w' stands for?
bool allowed(const StoreNode& node, unsigned domain, char what) {
  if (domain == 0) return true;
  if (node.permissions.empty()) return false;
  if (domain_of(node.permissions.front()) == domain) return true;
  char granted = node.permissions.front()[0];
  for (std::size_t i = 1; i < node.permissions.size(); i++)
    if (domain_of(node.permissions[i]) == domain) granted = node.permissions[i][0];
  return granted == 'b' || granted == what;
}

unsigned count(const StoreNode& node) {
  unsigned n = 1;
  for (const auto& [name, child] : node.children) n += count(child);
  return n;
}

std::string_view parent_of(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string_view last_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

const char* name_of(StoreError error) {
  static constexpr const char* kNames[] = {"",       "EINVAL", "EACCES", "EEXIST", "ENOENT",
                                           "ENOSPC", "E2BIG",  "ENOSYS", "EAGAIN", "EBUSY"};
  return kNames[static_cast<u8>(error)];
}

bool StoreTree::valid_path(std::string_view path) {
  if (path.empty() || path.front() != '/' || path.size() > kMostPath) return false;
  if (path == "/") return true;
  if (path.back() == '/') return false;
  std::size_t length = 0;
  for (const char c : path.substr(1)) {
    const bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                      c == '_' || c == '@' || c == '/';
    if (!fine) return false;
    length = c == '/' ? 0 : length + 1;
    if (c == '/' && path.find("//") != path.npos) return false;
    if (length > kMostComponent) return false;
  }
  return true;
}

StoreNode* StoreTree::find(std::string_view path) {
  StoreNode* node = &root_;
  for (std::size_t at = 1; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const auto child = node->children.find(path.substr(at, end - at));
    if (child == node->children.end()) return nullptr;
    node = &child->second;
    at = end + 1;
  }
  return node;
}

StoreError StoreTree::read(std::string_view path, unsigned domain, const StoreNode** node) const {
  const StoreNode* found = find(path);
  if (!found) return StoreError::not_found;
  if (!allowed(*found, domain, 'r')) return StoreError::access;
  *node = found;
  return StoreError::none;
}

// What is missing above comes into being too, each with the permissions of its parent and the maker as owner.
StoreError StoreTree::create(std::string_view path, unsigned domain, StoreNode** node) {
  if (StoreNode* there = find(path)) {
    *node = there;
    return StoreError::none;
  }
  StoreNode* parent = nullptr;
  if (const StoreError e = create(parent_of(path), domain, &parent); e != StoreError::none) return e;
  if (!allowed(*parent, domain, 'w')) return StoreError::access;
  if (domain != 0 && nodes_ >= kMostNodes) return StoreError::no_space;
  StoreNode fresh;
  fresh.permissions = parent->permissions;
  if (domain != 0 && !fresh.permissions.empty())
    fresh.permissions.front() = fresh.permissions.front().substr(0, 1) + std::to_string(domain);
  nodes_++;
  *node = &(parent->children[std::string(last_of(path))] = std::move(fresh));
  return StoreError::none;
}

StoreError StoreTree::write(std::string_view path, std::string_view value, unsigned domain) {
  if (domain != 0 && value.size() > kMostValue) return StoreError::no_space;
  if (const StoreNode* there = find(path); there && !allowed(*there, domain, 'w')) return StoreError::access;
  StoreNode* node = nullptr;
  if (const StoreError e = create(path, domain, &node); e != StoreError::none) return e;
  node->value = value;
  return StoreError::none;
}

StoreError StoreTree::make(std::string_view path, unsigned domain) {
  if (const StoreNode* there = find(path)) return allowed(*there, domain, 'w') ? StoreError::none : StoreError::access;
  StoreNode* node = nullptr;
  return create(path, domain, &node);
}

StoreError StoreTree::remove(std::string_view path, unsigned domain) {
  if (path == "/") return StoreError::invalid;
  StoreNode* parent = find(parent_of(path));
  if (!parent) return StoreError::not_found;
  const auto child = parent->children.find(last_of(path));
  // Gone already is as good as removed, if it could have been there.
  if (child == parent->children.end()) return StoreError::none;
  if (!allowed(child->second, domain, 'w')) return StoreError::access;
  nodes_ -= count(child->second);
  parent->children.erase(child);
  return StoreError::none;
}

StoreError StoreTree::set_permissions(std::string_view path, std::vector<std::string> permissions, unsigned domain) {
  StoreNode* node = find(path);
  if (!node) return StoreError::not_found;
  if (domain != 0 && (node->permissions.empty() || domain_of(node->permissions.front()) != domain))
    return StoreError::access;
  if (permissions.empty() || permissions.size() > kMostPermissions) return StoreError::invalid;
  for (const std::string& p : permissions)
    if (p.size() < 2 || std::string_view("nrwb").find(p[0]) == std::string_view::npos || !domain_of(p))
      return StoreError::invalid;
  if (domain != 0 && domain_of(permissions.front()) != domain) return StoreError::access;  // no gifts
  node->permissions = std::move(permissions);
  return StoreError::none;
}

}  // namespace trapline::para::xen
