// From a file's bytes to the programs in it: recognises ELF, bzImage, archives and what compresses them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "scan/image.h"
#include "scan/limits.h"

namespace trapline::scan {

// For bytes that are no known format: where they are loaded and how they decode.
struct RawOptions {
  u64 base = 0;
  isa::CodeSize code_size = isa::CodeSize::bits64;
};

// With `raw`, the bytes are taken as they are, whatever they look like. Archives give several images; members that are
// no programs are warned of in the first. Error: one line without the file's name.
Result<std::vector<Image>, std::string> open_images(const std::string& name, std::vector<u8> bytes,
                                                    const std::optional<RawOptions>& raw, const Limits& limits);

}  // namespace trapline::scan
