// The techniques that are held side by side: an engine, and the interface that the guest is offered.
#pragma once

#include <string>
#include <vector>

#include "machine/config.h"

namespace trapline::compare {

struct Interface {
  std::string name;  // as --para spells it
  machine::ParaChoice value;
};

struct Technique {
  std::string engine;  // as --engine spells it
  Interface para;
  bool slow = false;    // an engine without code of its own: one run is enough to wait for
  bool direct = false;  // it runs programs in cages
  bool traps = false;   // --patch-with traps
  std::string way() const { return traps ? engine + "/traps" : engine; }
  std::string name() const { return way() + ", " + para.name; }
};

// Every engine that this build and host have for so many vCPUs, the reference first, with each interface.
std::vector<Technique> all_techniques(const std::vector<Interface>& interfaces, u32 vcpus);

}  // namespace trapline::compare
