// Linux bzImage: the compressed kernel inside. Documentation/arch/x86/boot.rst, "payload_offset", "payload_length".
#pragma once

#include <string>

#include "base/result.h"
#include "scan/bytes.h"

namespace trapline::scan {

bool is_bzimage(Bytes bytes);

struct Payload {
  Bytes bytes;
  std::string version;  // "6.1.0-50-cloud-amd64 (...)", may be empty
};
// Error: one line without the file's name.
Result<Payload, std::string> bzimage_payload(Bytes bytes);

}  // namespace trapline::scan
