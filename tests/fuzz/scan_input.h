// What the scanner's fuzzers share: limits that keep one input cheap, and what must hold of every scan.
#pragma once

#include "base/invariant.h"
#include "scan/scan.h"

namespace trapline::fuzz {

inline constexpr scan::Limits kLimits{1 * MiB, 4 * MiB, 3, 4096, 65536, 65536, 64};

inline void check(const scan::Image& image, const scan::Scan& s) {
  u64 bytes = 0;
  for (const auto& section : image.sections)
    if (section.code) bytes += section.bytes.size();
  const scan::Totals& t = s.totals;
  INVARIANT(t.code() + t.padding + t.data == bytes, "{} + {} + {} of {} bytes", t.code(), t.padding, t.data, bytes);
  INVARIANT(t.instructions <= bytes, "{} instructions in {} bytes", t.instructions, bytes);
  u64 last = 0;
  for (const scan::Finding& f : s.findings) {
    const scan::Section* in = image.code_at(f.address);
    INVARIANT(in && f.length >= 1 && f.length <= 15 && in->end() - f.address >= f.length, "finding at {:#x}",
              f.address);
    INVARIANT(std::memcmp(in->bytes.data() + (f.address - in->address), f.bytes.data(), f.length) == 0,
              "bytes of the finding at {:#x}", f.address);
    INVARIANT(f.confidence != scan::Confidence::none && f.address >= last, "order or confidence at {:#x}", f.address);
    last = f.address;
    if (const auto* site = s.patches.at(f.address)) INVARIANT(!scan::describe(*site).empty(), "a site without words");
  }
  for (const scan::Finding& f : s.hidden) INVARIANT(image.code_at(f.address), "hidden at {:#x}", f.address);
}

}  // namespace trapline::fuzz
