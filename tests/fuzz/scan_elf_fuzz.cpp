// The scanner on whole files: ELF of every kind, archives, compressed ones, kernels.
#include "scan/open.h"
#include "scan_input.h"

using namespace trapline;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  auto images = scan::open_images("input", {data, data + size}, std::nullopt, fuzz::kLimits);
  if (!images) return 0;
  for (scan::Image& image : *images) fuzz::check(image, scan::scan_image(image, fuzz::kLimits, {}));
  return 0;
}
