// The scan of one image: which of its bytes are code, and which instructions in it have a row in the instruction table.
#pragma once

#include <array>
#include <functional>

#include "isa/table.h"
#include "scan/code_map.h"
#include "scan/image.h"
#include "scan/limits.h"
#include "scan/linux_patches.h"

namespace trapline::scan {

struct Finding {
  u64 address = 0;
  isa::RowId row{};
  u8 length = 0;
  std::array<u8, 15> bytes{};
  Confidence confidence = Confidence::none;
  bool overlaps = false;  // starts inside of another instruction that is executed, too
};

// An instruction that is one thing for Intel's CPUs and another for AMD's.
struct VendorDifference {
  u64 address = 0;
  const char* what = nullptr;
  u8 intel_length = 0, amd_length = 0;  // 0: none
  std::array<u8, 15> bytes{};
};

enum class Vendors : u8 { intel, amd, both };
const char* name_of(Vendors vendors);

struct ScanOptions {
  bool every_offset = false;
  // As whose code. Both: boundaries are Intel's, and where AMD's CPUs go another way that is walked and told, too.
  Vendors vendors = Vendors::both;
  u64 most_findings = 1'000'000;  // of each kind; what is beyond is counted
};

struct Totals {  // in bytes, but for instructions
  u64 certain = 0, likely = 0, speculative = 0, padding = 0, data = 0;
  u64 instructions = 0;
  u64 code() const { return certain + likely + speculative; }
};

struct Scan {
  LinuxPatches patches;
  CodeMap map;
  std::vector<Finding> findings;  // by address
  std::vector<Finding> hidden;    // --every-offset: sensitive instructions that start where no instruction was found to
  std::vector<VendorDifference> differences;  // by address
  u64 left_out = 0;                           // findings and differences beyond the limit
  Vendors vendors = Vendors::both;
  Totals totals;
  u64 jump_tables = 0, unresolved_jumps = 0;
};

// Called now and then from the scanning thread with the share that is done, 0 to 1.
using Progress = std::function<void(double)>;

// `image` gets roots and symbols that only its contents tell (.eh_frame, patch tables).
Scan scan_image(Image& image, const Limits& limits, const ScanOptions& options, const Progress& progress = {});

}  // namespace trapline::scan
