// Closes the core in. After lock_down() this process can compute, sleep and wake others through shared memory, write to
// the one trace descriptor if it has one, and end. It cannot name a file, a socket or another process, nor make new
// executable memory.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace trapline::core {

// Early: no new privileges, dies with the monitor, not attachable, no core dumps, no capabilities; no files if it has a
// mount namespace of its own.
void harden_process(bool own_mounts);

// Closes every descriptor but `keep` (-1: none), which becomes descriptor 0, and `others`, which stay what they are.
// Returns 0, or -1 without one.
int close_descriptors(int keep, std::vector<int> others = {});

struct Confinement {
  int trace_fd = -1;                  // the one descriptor that may be written; -1: none
  u32 vcpus = 1;                      // memory grows with them
  u64 cpu_seconds = 0;                // of all threads; 0: no limit
  std::vector<int> orders = {};       // pipes that may be written
  std::vector<pid_t> processes = {};  // that may be signalled and waited for: cages
  std::vector<int> images = {};       // may be sent to ram_fd, and be closed
  int ram_fd = -1;                    // -1: nothing is sent
  u64 ram_bytes = 0;                  // its size
};

// What the core may map beyond what it has when it is locked down: private memory, and address space in all (malloc
// reserves more than it uses).
u64 data_allowance(u32 vcpus);
u64 address_space_allowance(u32 vcpus);

// Limits memory, CPU time and the trace's size, and installs the seccomp allow-list for all threads of the process.
Result<void, std::string> lock_down(const Confinement& confinement);

}  // namespace trapline::core
