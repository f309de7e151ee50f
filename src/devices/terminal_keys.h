// A terminal's bytes as key strokes on a US keyboard: characters, control characters, and the escape sequences of xterm's
// kind for arrows, editing and function keys.
#pragma once

#include <cstddef>

#include "base/types.h"
#include "devices/ps2_keyboard.h"

namespace trapline::devices {

// Types as much as the keyboard has room for; returns how many bytes that were. A sequence is to be in one piece: an
// escape that nothing follows is the key. What no key has is passed over.
std::size_t type_bytes(Ps2Keyboard& keyboard, const u8* bytes, std::size_t count);

}  // namespace trapline::devices
