// Makes cages: processes that have given up everything but the stub and two descriptors, before anything of a guest has
// been looked at.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "cage/cage.h"

namespace trapline::cage {

class Pool {
 public:
  // Forks `count` cages from the calling thread, which must be the only one, and which they do not outlive. ram_fd:
  // guest RAM, not kept. copy_pages: room for pages with patches, which cages can map and only this process can write.
  // The last `elsewhere` of them have their stub at kOtherStub. Fewer cages than asked for, or none: the host's limits,
  // which leave room for `spare` more tasks. Error: one line.
  static Result<std::unique_ptr<Pool>, std::string> make(unsigned count, int ram_fd, u64 copy_pages, unsigned spare = 0,
                                                         const Defences& defences = {}, unsigned elsewhere = 0);
  ~Pool();  // kills them
  Pool(const Pool&) = delete;

  std::size_t size() const { return cages_.size(); }
  // CPUID faults in the cages: code of which nobody can say whether it is CPUID may run.
  bool cpuid_faults() const { return cpuid_faults_; }
  // How many mappings each may have: what the host allows a process (vm.max_map_count), with some to spare.
  u64 most_mappings() const { return most_mappings_; }
  // The descriptors that the core must keep, and the processes that it must be able to signal.
  std::vector<int> descriptors() const;
  std::vector<pid_t> processes() const;
  // Hands them out: each to one vCPU.
  std::vector<std::unique_ptr<Cage>> share(unsigned part, unsigned parts);
  // The part of the room for patched pages that goes with them, and where it lies in the cages' file.
  std::span<u8> copies(unsigned part, unsigned parts) const;
  u64 copies_offset(unsigned part, unsigned parts) const;

 private:
  Pool() = default;
  static void end(const Cage::Parts& cage);
  std::vector<Cage::Parts> cages_;
  Shared* shared_ = nullptr;
  std::size_t slots_ = 0;
  u8* copies_ = nullptr;
  u64 copies_bytes_ = 0;
  u64 most_mappings_ = 0;
  bool cpuid_faults_ = false;
};

// What this host lacks for cages, or empty: makes one and has it map a page.
std::string missing_on_host();

}  // namespace trapline::cage
