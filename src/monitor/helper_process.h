// Programs of the host's that serve a device: started for it, and ended with it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "monitor/file_rules.h"
#include "monitor/files.h"

namespace trapline::monitor {

// A process that ends with its owner, killed if it does not end by itself.
class HelperProcess {
 public:
  HelperProcess() = default;
  explicit HelperProcess(pid_t pid) : pid_{pid} {}
  HelperProcess(HelperProcess&& o) noexcept : pid_{std::exchange(o.pid_, -1)} {}
  HelperProcess& operator=(HelperProcess&& o) noexcept {
    std::swap(pid_, o.pid_);
    return *this;
  }
  ~HelperProcess();

  pid_t pid() const { return pid_; }
  // It has been told to end: for so long it may work on.
  void await_end(std::chrono::milliseconds patience);

 private:
  pid_t pid_ = -1;
};

struct HelperStart {
  std::string program;                        // a path
  std::vector<std::string> arguments = {};    // without the program's name
  std::vector<std::string> environment = {};  // NAME=VALUE, and nothing else
  // Its descriptor 3. With `activated` it is told of that as systemd tells it (sd_listen_fds(3)).
  int descriptor = -1;
  bool activated = false;
  int output = -1;       // its standard output and error; -1: none
  int death_signal = 9;  // what it gets when the thread that started it ends
  // Null: it keeps the user's rights to files, for it closes itself in.
  const FileRules* files = nullptr;
};

// Where a program is: in $PATH, or where distributions have it. Nothing: it is not installed.
std::optional<std::string> find_program(const std::string& name);
// By the thread that lives as long as the process. Error: errno.
Result<HelperProcess, int> start_helper(const HelperStart& start);

// What a helper says on its standard output and error, read without waiting; its end is not blocked by what nobody
// reads.
class HelperWords {
 public:
  static Result<HelperWords, int> create();  // error: errno
  int theirs() const { return theirs_.get(); }
  void started() { theirs_ = Fd{}; }  // our copy of its end is of no more use
  // The last line that it has said, or nothing. Once.
  std::string last_line() const;

 private:
  Fd ours_, theirs_;
};

}  // namespace trapline::monitor
