// What the init of `trapline exec` (src/agent/) and the monitor say to each other over one port of a virtio console.
// Frames, little-endian: a header, then `length` bytes.
//
// A stream's sender has at most kWindow bytes on the way that the other side has not acknowledged, so that a reader who
// is slow stops its own stream and no other.
//
// Each side checks what the other sends: a header that makes no sense ends the conversation.
#pragma once

#include "base/types.h"

namespace trapline::agent {

enum class Kind : u8 {
  data = 1,      // both ways: bytes of `stream`
  end = 2,       // both ways: `stream` has ended
  taken = 3,     // both ways: u32, so many bytes of `stream` have been passed on
  resize = 4,    // to the guest: WindowSize
  signal = 5,    // to the guest: u32, for the command
  started = 6,   // to the host: the command runs
  finished = 7,  // to the host: Finished; all output has been sent, and all files are written
  failed = 8,    // to the host: text, one line: why there is no command
};

enum class Stream : u8 { input, output, error };
inline constexpr unsigned kStreams = 3;

struct Header {
  Kind kind;
  Stream stream;
  u16 zero;
  u32 length;
};
static_assert(sizeof(Header) == 8);

struct WindowSize {
  u16 rows, columns;
};

struct Finished {
  u32 signalled;  // 1: `value` is a signal, 0: an exit code
  u32 value;
};

inline constexpr u32 kMostPayload = 16 * KiB;
inline constexpr u32 kWindow = 256 * KiB;

// What the init is told, in the file /trapline of its initramfs: lines of "key value", value up to the line's zero byte.
//
//   module PATH           to load, in this order
//   root TAG              a 9p share, read-only, that becomes / under a writable overlay
//   rootdisk DEVICE       a disk with an ext4 file system, instead of such a share
//   network ADDRESS MASK GATEWAY DNS   eth0 gets these
//   share TAG rw|ro PATH  a 9p share, mounted at PATH
//   uid N   gid N   group N (repeated)   umask OCTAL
//   directory PATH        where the command starts
//   terminal ROWS COLUMNS the command gets a terminal
//   env NAME=VALUE   arg WORD   (repeated)
inline constexpr const char* kConfigPath = "/trapline";

inline constexpr const char* kPortName = "trapline.exec";

// The command's exit code when it cannot be started, as shells have it.
inline constexpr int kNotExecutable = 126, kNotFound = 127;

}  // namespace trapline::agent
