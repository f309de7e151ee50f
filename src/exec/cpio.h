// Archives that Linux unpacks as its first root: cpio, "newc" (Documentation/driver-api/early-userspace/
// buffer-format.rst).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "exec/content.h"

namespace trapline::exec {

class Cpio {
 public:
  // Into the empty file `fd`, which stays the caller's.
  explicit Cpio(int fd) : fd_{fd} {}
  void directory(std::string_view path, u32 mode = 0755);
  void file(std::string_view path, const Content& content, u32 mode = 0644);
  void file(std::string_view path, std::span<const u8> content, u32 mode = 0644);
  // The archive is whole. False: something could not be written, errno says why.
  bool finish();

 private:
  void head(std::string_view path, u32 mode, u64 size);
  void put(const void* bytes, u64 size);
  void pad();
  int fd_;
  u64 written_ = 0;
  int error_ = 0;
  u32 inode_ = 0;
};

}  // namespace trapline::exec
