// Memory whose races are part of the design, for builds with ThreadSanitizer (preset `tsan`). Elsewhere nothing.
#pragma once

#include <cstddef>

#ifdef __SANITIZE_THREAD__
extern "C" void AnnotateBenignRaceSized(const char* file, int line, const volatile void* memory, std::size_t size,
                                        const char* why);
#endif

namespace trapline {

// From now on no race in these bytes is reported: until the process ends, whatever is mapped there later.
inline void declare_races_benign([[maybe_unused]] const volatile void* memory, [[maybe_unused]] std::size_t size,
                                 [[maybe_unused]] const char* why) {
#ifdef __SANITIZE_THREAD__
  AnnotateBenignRaceSized(__FILE__, __LINE__, memory, size, why);
#endif
}

}  // namespace trapline
