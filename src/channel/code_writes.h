// Devices write to guest RAM in the monitor; the core must forget code that was decoded from there. Which frames hold
// code the core keeps in shared memory (cpu::CodeMap's lines, a word for each frame), so that nearly every write is
// known to be harmless. For one that is not the monitor asks, and waits for the answer before the guest is told that
// the device is done.
//
// No write is missed: the device's bytes are there before the monitor looks at the lines; the core sets a line before
// it reads the bytes that it decodes, and compares them again after (cpu/code_map.h). Both orders are full barriers,
// so either the monitor sees the line or the core sees the bytes.
#pragma once

#include <atomic>

#include "base/types.h"

namespace trapline::channel {

// One question at a time; the monitor has a lock for that. Writable by both processes: a core that answers too early
// misleads itself.
struct CodeWrites {
  alignas(64) std::atomic<u32> asked{0};     // questions so far, modulo 2^32; a futex
  std::atomic<u64> at{0}, bytes{0};          // guest-physical
  alignas(64) std::atomic<u32> answered{0};  // a futex
};

}  // namespace trapline::channel
