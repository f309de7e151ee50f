#include "volume/ext.h"

#include <dlfcn.h>
#include <ext2fs/ext2fs.h>
#include <fmt/format.h>
#include <stdlib.h>

#include <cstring>

namespace trapline::volume {

namespace {

constexpr std::size_t kMostNames = 10'000;

struct Library {
  decltype(&::ext2fs_open2) open;
  decltype(&::ext2fs_close) close;
  decltype(&::ext2fs_namei_follow) find;
  decltype(&::ext2fs_read_inode) read_inode;
  decltype(&::ext2fs_dir_iterate2) iterate;
  decltype(&::ext2fs_file_open) file_open;
  decltype(&::ext2fs_file_close) file_close;
  decltype(&::ext2fs_file_read) file_read;
  decltype(&::ext2fs_file_get_lsize) file_size;
};
const Library* g_library;

// What libext2fs reads through: the partition and nothing else. The manager's open() is given a name only.
struct Window {
  const Source* disk;
  u64 first, bytes;
};
thread_local const Window* t_opening;

errcode_t read_blocks(io_channel channel, unsigned long long block, int count, void* data) {
  const Window& window = *static_cast<const Window*>(channel->private_data);
  const u64 size = static_cast<u64>(channel->block_size);
  // Negative: bytes.
  const u64 bytes = count < 0 ? static_cast<u64>(-static_cast<i64>(count)) : static_cast<u64>(count) * size;
  if (block > window.bytes / size || bytes > window.bytes - block * size) return EXT2_ET_SHORT_READ;
  const std::span<u8> to{static_cast<u8*>(data), bytes};
  return window.disk->read(window.first + block * size, to) ? 0 : EXT2_ET_SHORT_READ;
}

errcode_t read_blocks32(io_channel channel, unsigned long block, int count, void* data) {
  return read_blocks(channel, block, count, data);
}

errcode_t set_block_size(io_channel channel, int size) {
  if (size < 512 || size > 65536) return EXT2_ET_INVALID_ARGUMENT;
  channel->block_size = size;
  return 0;
}

errcode_t close_channel(io_channel channel) {
  if (--channel->refcount > 0) return 0;
  delete static_cast<const Window*>(channel->private_data);
  ::free(channel->name);
  ::free(channel);
  return 0;
}

errcode_t open_channel(const char* name, int, io_channel* channel);

errcode_t write_blocks32(io_channel, unsigned long, int, const void*) { return EXT2_ET_RO_FILSYS; }
errcode_t write_blocks(io_channel, unsigned long long, int, const void*) { return EXT2_ET_RO_FILSYS; }
errcode_t flush(io_channel) { return 0; }

io_manager manager() {
  static struct_io_manager m = [] {
    struct_io_manager made{};
    made.magic = EXT2_ET_MAGIC_IO_MANAGER;
    made.name = "volume";
    made.open = open_channel, made.close = close_channel, made.set_blksize = set_block_size;
    made.read_blk = read_blocks32, made.read_blk64 = read_blocks;
    made.write_blk = write_blocks32, made.write_blk64 = write_blocks, made.flush = flush;
    return made;
  }();
  return &m;
}

// The library gives back by free() what it was given.
errcode_t open_channel(const char* name, int, io_channel* channel) {
  auto* made = static_cast<io_channel>(::calloc(1, sizeof(struct_io_channel)));
  if (!made) return EXT2_ET_NO_MEMORY;
  made->magic = EXT2_ET_MAGIC_IO_CHANNEL;
  made->manager = manager();
  made->name = ::strdup(name);
  made->block_size = 1024;
  made->refcount = 1;
  made->private_data = new Window{*t_opening};
  *channel = made;
  return 0;
}

}  // namespace

Result<void, std::string> load_ext_library() {
  static Library library{};
  if (g_library) return {};
  void* handle = ::dlopen("libext2fs.so.2", RTLD_NOW | RTLD_LOCAL);
  if (!handle) return Err{std::string{"reading images needs libext2fs: apt-get install libext2fs2"}};
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(handle, name));
    if (!function) missing = name;
  };
  find(library.open, "ext2fs_open2");
  find(library.close, "ext2fs_close");
  find(library.find, "ext2fs_namei_follow");
  find(library.read_inode, "ext2fs_read_inode");
  find(library.iterate, "ext2fs_dir_iterate2");
  find(library.file_open, "ext2fs_file_open");
  find(library.file_close, "ext2fs_file_close");
  find(library.file_read, "ext2fs_file_read");
  find(library.file_size, "ext2fs_file_get_lsize");
  if (missing) return Err{fmt::format("libext2fs has no {}: install a version from 1.43 on", missing)};
  g_library = &library;
  return {};
}

struct Ext::State {
  ext2_filsys fs = nullptr;

  // 0: there is none.
  ext2_ino_t find(const std::string& path) const {
    ext2_ino_t inode = 0;
    return g_library->find(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path.c_str(), &inode) == 0 ? inode : 0;
  }
};

std::unique_ptr<Ext> Ext::open(const Source& disk, const Partition& partition) {
  const Window window{&disk, partition.first, partition.bytes};
  t_opening = &window;
  auto state = std::make_unique<State>();
  const errcode_t error = g_library->open("disk", nullptr, EXT2_FLAG_64BITS, 0, 0, manager(), &state->fs);
  if (error != 0) return nullptr;
  std::unique_ptr<Ext> ext{new Ext};
  ext->state_ = std::move(state);
  return ext;
}

Ext::~Ext() {
  if (state_) g_library->close(state_->fs);
}

bool Ext::has(const std::string& path) const { return state_->find(path) != 0; }

std::vector<std::string> Ext::names(const std::string& folder) const {
  std::vector<std::string> all;
  const ext2_ino_t inode = state_->find(folder);
  if (inode == 0) return all;
  const auto each = [](ext2_ino_t, int, ext2_dir_entry* entry, int, int, char*, void* to) {
    auto& names = *static_cast<std::vector<std::string>*>(to);
    names.emplace_back(entry->name, ext2fs_dirent_name_len(entry));
    return names.size() < kMostNames ? 0 : DIRENT_ABORT;
  };
  g_library->iterate(state_->fs, inode, 0, nullptr, each, &all);
  return all;
}

Result<void, std::string> Ext::read(const std::string& path, u64 most, const Taker& take) const {
  const ext2_ino_t inode = state_->find(path);
  if (inode == 0) return Err{std::string{"no such file"}};
  ext2_inode found{};
  if (g_library->read_inode(state_->fs, inode, &found) != 0 || !LINUX_S_ISREG(found.i_mode))
    return Err{std::string{"no regular file"}};
  ext2_file_t file = nullptr;
  if (g_library->file_open(state_->fs, inode, 0, &file) != 0) return Err{std::string{"it cannot be read"}};
  const std::unique_ptr<ext2_file, void (*)(ext2_file_t)> closed{file, [](ext2_file_t f) { g_library->file_close(f); }};
  __u64 size = 0;
  if (g_library->file_size(file, &size) != 0 || size == 0) return Err{std::string{"it is empty"}};
  if (size > most) return Err{fmt::format("{} MiB: more than {} MiB", size >> 20, most >> 20)};
  std::vector<u8> bytes(256 * KiB);
  for (u64 done = 0; done < size;) {
    unsigned got = 0;
    if (g_library->file_read(file, bytes.data(), static_cast<unsigned>(bytes.size()), &got) != 0 || got == 0)
      return Err{std::string{"the file system is damaged"}};
    if (!take({bytes.data(), got})) return Err{std::string{"no memory to hold it"}};
    done += got;
  }
  return {};
}

}  // namespace trapline::volume
