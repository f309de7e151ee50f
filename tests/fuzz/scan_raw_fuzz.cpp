// Raw code of every size at a base that the first byte chooses, with all offsets.
#include "scan/open.h"
#include "scan_input.h"

using namespace trapline;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size < 2) return 0;
  constexpr isa::CodeSize kSizes[] = {isa::CodeSize::bits16, isa::CodeSize::bits32, isa::CodeSize::bits64};
  const scan::RawOptions raw{~u64{0} << (data[0] / 3 % 64), kSizes[data[0] % 3]};
  auto images = scan::open_images("input", {data + 1, data + size}, raw, fuzz::kLimits);
  if (!images) return 0;
  fuzz::check(images->front(), scan::scan_image(images->front(), fuzz::kLimits, {.every_offset = true}));
  return 0;
}
