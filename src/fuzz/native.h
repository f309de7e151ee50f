// Runs sequences on the host CPU, in a child process of its own: code, data and stack pages at fixed addresses, system
// calls forbidden but for one socket, every fault caught by a signal. One signal ends a sequence and, by its return,
// starts the next.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "fuzz/program.h"

namespace trapline::fuzz {

class Native {
 public:
  // Error: what the host does not allow.
  static Result<std::unique_ptr<Native>, std::string> start();
  ~Native();
  Native(const Native&) = delete;
  Native& operator=(const Native&) = delete;

  // At most place::batch programs. submit() returns at once; collect() waits and gives their outcomes in order, which
  // stay valid until the next submit(). Two batches may not be under way.
  void submit(const std::vector<const Program*>& programs);
  const Outcome& outcome(std::size_t index) const;
  void collect();
  // Runs one of the last batch's programs once more, in its slot, and waits; replaces its outcome.
  void again(std::size_t index);

  static const u8* read_only_page();  // its contents, the same for both sides
  u64 restarts() const { return restarts_; }
  // Does the host's kernel let a process run code of this size? By selectors that its descriptor tables have.
  bool runs(isa::CodeSize size) const;

  struct Shared;  // what the child sees

 private:
  Native() = default;
  bool spawn();
  void reap();
  void order();
  bool answered();

  Shared* shared_ = nullptr;
  int code_fd_ = -1;
  u8* code_ = nullptr;  // writable view of the child's code pages
  int channel_ = -1;
  int pid_ = -1;
  u64 restarts_ = 0;
};

}  // namespace trapline::fuzz
