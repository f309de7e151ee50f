#include "exec/cpio.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

namespace trapline::exec {

void Cpio::put(const void* bytes, u64 size) {
  if (error_ == 0 && !write_whole(fd_, bytes, size)) error_ = errno;
  written_ += size;
}

void Cpio::pad() {
  static constexpr u8 kZeros[4] = {};
  put(kZeros, -written_ % 4);
}

void Cpio::head(std::string_view path, u32 mode, u64 size) {
  while (path.starts_with('/')) path.remove_prefix(1);
  // inode mode uid gid links mtime size, device and special device, length of the name with its zero, checksum
  std::string text = fmt::format("070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
                                 ++inode_, mode, 0, 0, S_ISDIR(mode) ? 2 : 1, 0, size, 0, 0, 0, 0, path.size() + 1, 0);
  text += path;
  text += '\0';
  put(text.data(), text.size());
  pad();
}

void Cpio::directory(std::string_view path, u32 mode) { head(path, S_IFDIR | mode, 0); }

void Cpio::file(std::string_view path, std::span<const u8> content, u32 mode) {
  head(path, S_IFREG | mode, content.size());
  put(content.data(), content.size());
  pad();
}

void Cpio::file(std::string_view path, const Content& content, u32 mode) {
  head(path, S_IFREG | mode, content.size());
  if (error_ == 0 && !content.write_to(fd_)) error_ = errno != 0 ? errno : EIO;
  written_ += content.size();
  pad();
}

bool Cpio::finish() {
  inode_ = ~u32{0};
  head("TRAILER!!!", 0, 0);
  errno = error_;
  return error_ == 0;
}

}  // namespace trapline::exec
