// How much one input may cost. Fuzzers and tests lower them.
#pragma once

#include "base/types.h"

namespace trapline::scan {

struct Limits {
  u64 input = 2 * GiB;       // a file as it lies on the disk
  u64 unpacked = 512 * MiB;  // what one compressed layer may grow to
  u32 layers = 4;            // compressed in compressed
  u32 sections = 65536;
  u32 symbols = 4'000'000;
  u32 relocations = 16'000'000;
  u32 members = 4096;  // of an archive
};

}  // namespace trapline::scan
