// Every unpacker on the same bytes (behind its own magic number, so that mutations need not find it), and bzImage
// headers.
#include "base/invariant.h"
#include "packing/unpack.h"
#include "scan/bzimage.h"
#include "scan_input.h"

using namespace trapline;
using packing::Packing;

namespace {

constexpr Packing kPackings[] = {Packing::gzip, Packing::xz,  Packing::lzma, Packing::zstd,
                                 Packing::lz4,  Packing::lzo, Packing::bzip2};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const scan::Bytes bytes{data, size};
  if (scan::is_bzimage(bytes))
    if (const auto payload = scan::bzimage_payload(bytes))
      INVARIANT(payload->bytes.data() >= data && payload->bytes.data() + payload->bytes.size() <= data + size,
                "payload outside of the file");
  const Packing own = packing::packing_of(bytes);
  for (Packing p : kPackings) {
    if (own != Packing::none && p != own) continue;
    const auto out = packing::unpack(p, bytes, fuzz::kLimits.unpacked);
    if (out) INVARIANT(out->size() <= fuzz::kLimits.unpacked, "{} bytes", out->size());
    if (!out) INVARIANT(!out.error().empty(), "an error without words");
  }
  return 0;
}
