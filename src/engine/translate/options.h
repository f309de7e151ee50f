// What the process that runs engines decides for all of them. Set before engines are made.
#pragma once

namespace trapline::engine::translate {

// Translated code counts the instructions that retire: needed for --clock instructions, budgets, --stats and debuggers.
// Without it cpu.retired counts only what was interpreted.
inline bool count_instructions = true;

}  // namespace trapline::engine::translate
