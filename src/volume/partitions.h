// The partitions of a disk: GPT (UEFI 2.10, chapter 5), its spare table where the first is damaged, or MBR with logical
// ones; a disk with neither is one file system. Whatever is in the tables, a partition that is returned is inside the
// disk.
#pragma once

#include <string>
#include <vector>

#include "volume/source.h"

namespace trapline::volume {

struct Partition {
  unsigned number = 0;  // as Linux counts; 0: the whole disk
  u64 first = 0, bytes = 0;
  std::string partuuid;  // as root=PARTUUID= has it; empty for the whole disk
};

inline constexpr std::size_t kMostPartitions = 128;

std::vector<Partition> partitions_of(const Source& disk);

// A table of partitions, or an ext file system: what a disk begins with and no kernel does.
bool looks_like_a_disk(const Source& disk);

}  // namespace trapline::volume
