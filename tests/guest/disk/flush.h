// What the guest writes and the host looks for.
#pragma once
#include <stdint.h>

enum { kRecordWords = 512, kBlocks = 1000, kMostTogether = 4 };

// Where record n goes: blocks are written again, in an order without a pattern.
static inline uint64_t block_of(uint64_t n) { return n * 2654435761u % kBlocks; }
