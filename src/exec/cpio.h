// Archives that Linux unpacks as its first root: cpio, "newc" (Documentation/driver-api/early-userspace/
// buffer-format.rst).
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace trapline::exec {

class Cpio {
 public:
  void directory(std::string_view path, u32 mode = 0755);
  void file(std::string_view path, std::span<const u8> content, u32 mode = 0644);
  // The archive, whole.
  std::vector<u8> finish() &&;

 private:
  void entry(std::string_view path, u32 mode, std::span<const u8> content);
  void pad();
  std::vector<u8> bytes_;
  u32 inode_ = 0;
};

}  // namespace trapline::exec
