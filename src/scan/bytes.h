// Reading hostile bytes: see packing/bytes.h.
#pragma once

#include "packing/bytes.h"

namespace trapline::scan {

using packing::Bytes;
using packing::load;
using packing::load_word;
using packing::slice;
using packing::starts_with;
using packing::string_at;
using packing::tail;

}  // namespace trapline::scan
