// Files of an ext2, ext3 or ext4 file system, by libext2fs, read only. The library is loaded when it is needed: nobody
// but the process that reads images has it in memory, and Trapline starts on hosts without it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "volume/partitions.h"

namespace trapline::volume {

// Error: what to install. Before the process is closed in.
Result<void, std::string> load_ext_library();

class Ext {
 public:
  // Null: there is none in this partition. The disk outlives it.
  static std::unique_ptr<Ext> open(const Source& disk, const Partition& partition);
  ~Ext();
  Ext(const Ext&) = delete;

  bool has(const std::string& path) const;  // links are followed, inside the file system
  std::vector<std::string> names(const std::string& folder) const;

  using Taker = std::function<bool(std::span<const u8>)>;  // false: no more
  // A file's bytes in order. Error: one line without the path.
  Result<void, std::string> read(const std::string& path, u64 most, const Taker& take) const;

 private:
  Ext() = default;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trapline::volume
