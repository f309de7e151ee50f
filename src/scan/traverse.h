// Recursive traversal: from the roots along direct control flow, in falling confidence, then a sweep over the gaps.
#pragma once

#include <optional>
#include <set>

#include "scan/decoder.h"
#include "scan/scan.h"

namespace trapline::scan {

class Traversal {
 public:
  Traversal(const Image& image, Scan& scan, const ScanOptions& options, const Progress& progress);
  void run();

 private:
  void close(Confidence confidence);
  void walk(u64 address, Confidence confidence);
  bool begin(CodeMap::Area& area, u64 address, Confidence confidence, Shallow& insn);
  void follow(u64 address, const Shallow& insn);
  void other_way(CodeMap::Area& area, u64 address, const Shallow& insn);
  bool goes_on(u64 address, const Shallow& insn) const;
  struct Target {
    u64 address = 0;
    bool relocated = false, known = true;
  };
  Target target_of(u64 address, const Shallow& insn) const;
  void take_address(u64 address, const Shallow& insn);
  bool looks_like_code(u64 address);
  void start_likely();
  void resolve_jumps();
  bool bug_at(u64 address) const;
  void report();

  void fill_gaps();
  void fill_gap(CodeMap::Area& area, u64 first, u64 end);
  static void mark_all(CodeMap::Area& area, u64 first, u64 end, CodeMap::Mark mark);
  u64 skip_padding(CodeMap::Area& area, u64 at, u64 end) const;
  void sweep(CodeMap::Area& area, u64 first, u64 end, Confidence confidence);
  bool decodes_through(const CodeMap::Area& area, u64 first, u64 end) const;
  bool inside_function(u64 first, u64 end) const;

  const Image& image_;
  Scan& scan_;
  const Progress& progress_;
  const ScanOptions& options_;
  Decoder decoder_;
  std::optional<Decoder> amd_;  // both: the second reading
  u64 mask_;
  std::vector<u64> work_;
  std::vector<u64> likely_;    // to be walked once all that is certain is known
  std::set<u64> data_;         // outside of the code, and referred to by it
  std::vector<u64> indirect_;  // jumps whose table is still to be found
  u64 walked_ = 0, total_ = 0;
};

}  // namespace trapline::scan
