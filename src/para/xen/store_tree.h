// The tree of a xenstore: nodes with a value, children and permissions, bounded as a store's quota bounds what one
// domain may make (docs/misc/xenstore.txt in Xen's tree). Plain data: a transaction works on a copy.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace trapline::para::xen {

struct StoreNode {
  std::string value;
  std::vector<std::string> permissions;  // "n1", "r0"...: the first names the owner and what all others may
  std::map<std::string, StoreNode, std::less<>> children;
};

// errno values, which the protocol passes by name.
enum class StoreError : u8 { none, invalid, access, exists, not_found, no_space, too_big, unsupported, again, busy };
const char* name_of(StoreError error);

class StoreTree {
 public:
  static constexpr unsigned kMostNodes = 2048, kMostValue = 2048, kMostPermissions = 5;

  // `domain`: who asks; 0 may do anything. A path is absolute and well-formed (valid_path).
  StoreError read(std::string_view path, unsigned domain, const StoreNode** node) const;
  StoreError write(std::string_view path, std::string_view value, unsigned domain);
  StoreError make(std::string_view path, unsigned domain);
  StoreError remove(std::string_view path, unsigned domain);
  StoreError set_permissions(std::string_view path, std::vector<std::string> permissions, unsigned domain);
  unsigned nodes() const { return nodes_; }

  static bool valid_path(std::string_view path);

 private:
  StoreNode* find(std::string_view path);
  const StoreNode* find(std::string_view path) const { return const_cast<StoreTree*>(this)->find(path); }
  StoreError create(std::string_view path, unsigned domain, StoreNode** node);

  StoreNode root_{{}, {"r0"}, {}};
  unsigned nodes_ = 1;
};

}  // namespace trapline::para::xen
