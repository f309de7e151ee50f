// trapline doctor: what this host offers and what follows from it.
#pragma once

namespace trapline::cli {

// Prints the findings. 0: this host can run VMs; 7: something needed is missing.
int run_doctor();

}  // namespace trapline::cli
