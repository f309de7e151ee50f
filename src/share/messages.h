// The numbers of 9P2000.L: Linux, include/net/9p/9p.h, and the diod project's protocol.md.
#pragma once

#include "base/types.h"

namespace trapline::share {

// A reply has the request's number plus one.
enum class Message : u8 {
  lerror = 6,
  statfs = 8,
  lopen = 12,
  lcreate = 14,
  symlink = 16,
  mknod = 18,
  rename = 20,
  readlink = 22,
  getattr = 24,
  setattr = 26,
  xattrwalk = 30,
  xattrcreate = 32,
  readdir = 40,
  fsync = 50,
  lock = 52,
  getlock = 54,
  link = 70,
  mkdir = 72,
  renameat = 74,
  unlinkat = 76,
  version = 100,
  auth = 102,
  attach = 104,
  flush = 108,
  walk = 110,
  read = 116,
  write = 118,
  clunk = 120,
  remove = 122,
};

inline constexpr std::size_t kHeader = 7;      // size[4] type[1] tag[2]
inline constexpr std::size_t kDataHeader = 4;  // of what Rread and Rreaddir carry: count[4]
inline constexpr u32 kNoFid = ~u32{0};
inline constexpr u32 kNoUser = ~u32{0};
inline constexpr unsigned kMostWalk = 16;  // names in one Twalk
inline constexpr std::size_t kLongestName = 255;

namespace qid_type {
inline constexpr u8 directory = 0x80, symlink = 0x02, file = 0;
}

namespace setattr_bit {
inline constexpr u32 mode = 1, uid = 2, gid = 4, size = 8, atime = 0x10, mtime = 0x20, ctime = 0x40, atime_set = 0x80,
                     mtime_set = 0x100;
}

// Bits of Tlopen and Tlcreate. They are Linux's own for x86, but the protocol's for whatever the guest is.
namespace open_bit {
inline constexpr u32 access = 3, create = 0100, exclusive = 0200, truncate = 01000, append = 02000, dsync = 010000,
                     directory = 0200000, sync = 04000000;
}

inline constexpr u32 kRemoveDirectory = 0x200;  // Tunlinkat
inline constexpr u64 kGetattrBasic = 0x7ff;
inline constexpr u32 kStatfsMagic = 0x01021997;
inline constexpr u8 kLockSuccess = 0, kLockTypeUnlock = 2;

}  // namespace trapline::share
