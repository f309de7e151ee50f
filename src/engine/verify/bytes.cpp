#include "engine/verify/bytes.h"

#include <cstring>

namespace trapline::engine::verify {

[[gnu::noipa]] void copy(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

}  // namespace trapline::engine::verify
