// What people are told of a VM that could not be started, or that refuses what it was asked. The errors themselves say
// what was wrong and with which value (monitor/vm_error.h, monitor/vm_actions.h); whoever else drives VMs makes of them
// what it likes, as a status of HTTP.
#pragma once

#include <string>

#include "monitor/vm_actions.h"
#include "monitor/vm_error.h"

namespace trapline::wording {

// One line, with option, value and remedy; without the first two.
std::string line(const monitor::VmError& error);
std::string reason(const monitor::VmError& error);
// One line, behind the VM's name.
std::string line(const monitor::ActionError& error);

}  // namespace trapline::wording
