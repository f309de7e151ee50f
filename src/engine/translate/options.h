// What the process that runs engines decides for all of them. Set before engines are made.
#pragma once

namespace trapline::engine::translate {

// Translated code counts the instructions that retire: needed for --clock instructions, budgets, --stats and debuggers.
// Without it cpu.retired counts only what was interpreted.
inline bool count_instructions = true;

// Entries of an interpreted block before it is translated; at least 1. The environment variable TRAPLINE_HOT sets it,
// for tests.
inline unsigned hot_threshold = 64;
unsigned hot_threshold_of_environment();

}  // namespace trapline::engine::translate
