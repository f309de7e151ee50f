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

Scan scan_image(Image& image, const Limits& limits, bool every_offset, const Progress& progress) {
  add_unwind_entries(image, limits);
  LinuxPatches patches = read_linux_patches(image);
  Scan scan{std::move(patches), CodeMap{image}, {}, {}, {}, 0, 0};
  Traversal{image, scan, progress}.run();
  std::sort(scan.findings.begin(), scan.findings.end(),
            [](const Finding& a, const Finding& b) { return a.address < b.address; });
  for (Finding& f : scan.findings) f.overlaps = scan.map.find(f.address)->mark(f.address) & CodeMap::overlaps;
  count(scan);
  if (every_offset) scan.hidden = hidden_instructions(scan.map, image.code_size, isa::host_vendor());
  return scan;
}

}  // namespace trapline::scan
