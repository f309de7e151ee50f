// From an initramfs to a system that a command can run in.
#pragma once

#include "agent/config.h"

namespace trapline::agent {

// /dev, and the modules that the rest needs.
void load_modules(const Config& config);
// The root: a share, read-only, under an overlay in memory; /proc, /sys, /dev, /run and /tmp of the VM's own; the other
// shares. Then that is /.
void enter_root(const Config& config);
// The loopback interface, the host's name; eth0, if there is to be one, and /etc/resolv.conf in the new root.
void set_up_network(const Config& config);
// Disks are the user's: nobody else is in this VM.
void hand_over_disks(const Config& config);
// The port of that name, opened. Ends with fail() when it does not come.
int open_port();
// What was written to shares is on the host. They may be used no more.
void leave_shares(const Config& config);

}  // namespace trapline::agent
