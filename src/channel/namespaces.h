// Namespaces of the core's own, where the host allows them: it then sees no other process, no network, no System V IPC
// and no file, whatever the filter lets through. Not required: containers often forbid them.
#pragma once

#include <sys/types.h>

#include <string>

namespace trapline::channel {

// As fork(), into new user, network, PID, IPC, UTS and mount namespaces, or as much as the host allows. The child may
// make system calls only, until it executes something. Returns -1 with errno like fork(). `own_mounts`, in parent and
// child: it has a mount namespace.
pid_t fork_into_namespaces(bool& own_mounts);

// In such a child: what leave_files() needs survives exec.
void keep_mount_capability();

// In a process with a mount namespace of its own, and nowhere else: an empty, read-only root directory. False: it may
// not have one.
bool leave_files();

void drop_capabilities();

// Tries it: "user, net, pid, ipc, uts, mount", the part of it that the host allows, or nothing. For `trapline doctor`.
std::string own_namespaces();

}  // namespace trapline::channel
