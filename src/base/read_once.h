// What another process may change at any time is read once: a value that was checked and is then read again has not been
// checked.
#pragma once

#include <type_traits>

#include "base/types.h"

namespace trapline {

template <class T>
T read_once(const T& shared) {
  static_assert(std::is_integral_v<T> && sizeof(T) <= sizeof(u64));
  return *static_cast<const volatile T*>(&shared);
}

}  // namespace trapline
