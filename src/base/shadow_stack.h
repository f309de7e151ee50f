#pragma once

namespace trapline {

// Whether this thread has a shadow stack (CET; Linux 6.6, Documentation/arch/x86/shstk.rst). RETs and returns from
// signals are then checked against it.
bool shadow_stack_on();

}  // namespace trapline
