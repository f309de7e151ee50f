#include "exec/cpio.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <iterator>

namespace trapline::exec {

void Cpio::directory(std::string_view path, u32 mode) { entry(path, S_IFDIR | mode, {}); }

void Cpio::file(std::string_view path, std::span<const u8> content, u32 mode) { entry(path, S_IFREG | mode, content); }

void Cpio::entry(std::string_view path, u32 mode, std::span<const u8> content) {
  while (path.starts_with('/')) path.remove_prefix(1);
  // inode mode uid gid links mtime size, device and special device, length of the name with its zero, checksum
  fmt::format_to(std::back_inserter(bytes_),
                 "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}", ++inode_, mode,
                 0, 0, S_ISDIR(mode) ? 2 : 1, 0, content.size(), 0, 0, 0, 0, path.size() + 1, 0);
  bytes_.insert(bytes_.end(), path.begin(), path.end());
  bytes_.push_back(0);
  pad();
  bytes_.insert(bytes_.end(), content.begin(), content.end());
  pad();
}

void Cpio::pad() {
  while (bytes_.size() % 4) bytes_.push_back(0);
}

std::vector<u8> Cpio::finish() && {
  inode_ = ~u32{0};
  entry("TRAILER!!!", 0, {});
  return std::move(bytes_);
}

}  // namespace trapline::exec
