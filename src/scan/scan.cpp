#include "scan/scan.h"

#include <algorithm>
#include <utility>

#include "scan/every_offset.h"
#include "scan/traverse.h"
#include "scan/unwind.h"

namespace trapline::scan {

namespace {

void count(Scan& scan) {
  Totals& t = scan.totals;
  for (const CodeMap::Area& area : std::as_const(scan.map).areas()) {
    u8 confidence = 0;
    for (u8 mark : area.marks) {
      if (mark & CodeMap::start) {
        confidence = mark & CodeMap::confidence_mask;
        t.instructions++;
      }
      if (mark & (CodeMap::start | CodeMap::inside))
        (confidence == 3 ? t.certain : confidence == 2 ? t.likely : t.speculative)++;
      else
        (mark & CodeMap::padding ? t.padding : t.data)++;
    }
  }
}

}  // namespace

const char* name_of(Vendors vendors) {
  return vendors == Vendors::both ? "both" : vendors == Vendors::amd ? "amd" : "intel";
}

Scan scan_image(Image& image, const Limits& limits, const ScanOptions& options, const Progress& progress) {
  add_unwind_entries(image, limits);
  LinuxPatches patches = read_linux_patches(image);
  Scan scan{std::move(patches), CodeMap{image}, {}, {}, {}, 0, options.vendors, {}, 0, 0};
  Traversal{image, scan, options, progress}.run();
  const auto by_address = [](const auto& a, const auto& b) { return a.address < b.address; };
  std::sort(scan.findings.begin(), scan.findings.end(), by_address);
  std::sort(scan.differences.begin(), scan.differences.end(), by_address);
  for (Finding& f : scan.findings) f.overlaps = scan.map.find(f.address)->mark(f.address) & CodeMap::overlaps;
  count(scan);
  if (options.every_offset) add_hidden_instructions(scan, image.code_size, options);
  return scan;
}

}  // namespace trapline::scan
