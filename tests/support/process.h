// A child process on pipes, for black-box tests: start, send, wait for text, exit code. Killed (with its process group)
// when destroyed.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace trapline::test {

class Process {
 public:
  struct Options {
    bool merge_stderr = true;              // stderr into output(); else kept in errors()
    std::vector<std::string> environment;  // NAME=VALUE, added
  };
  explicit Process(const std::vector<std::string>& argv) : Process(argv, Options{}) {}
  Process(const std::vector<std::string>& argv, const Options& options);
  ~Process();
  Process(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void send(std::string_view text);
  void close_input();
  void signal(int number);

  // Reads until `text` has appeared after everything already matched. False on time-out or end of output.
  bool wait_for(std::string_view text, std::chrono::seconds limit);
  // Reads to the end and reaps. The exit code, 128 + signal, or -1 on time-out (the child is then killed).
  int wait_exit(std::chrono::seconds limit);

  const std::string& output() const { return output_; }
  const std::string& errors() const { return errors_; }

 private:
  bool pump(std::chrono::steady_clock::time_point until);  // false: nothing more will come, or too late

  pid_t pid_ = -1;
  int in_ = -1, out_ = -1, err_ = -1;
  std::string output_, errors_;
  std::size_t matched_ = 0;
  bool reaped_ = false;
  int status_ = 0;
};

// The whole run of a command that ends by itself.
struct Finished {
  int code;
  std::string output, errors;
};
Finished run(const std::vector<std::string>& argv, std::string_view input = {},
             std::chrono::seconds limit = std::chrono::seconds{60},
             const Process::Options& options = Process::Options{});

}  // namespace trapline::test
