// Programs of the host's that a build is made of.
#pragma once

#include <string>
#include <vector>

namespace trapline::image {

// Its path, looked for in PATH and where administrators' programs are; empty: it is not there.
std::string find_tool(const std::string& name);

// While one of these lives, signals that end a process are kept for run_tool(), which passes them on.
class SignalsHeld {
 public:
  SignalsHeld();
  ~SignalsHeld();
  SignalsHeld(const SignalsHeld&) = delete;

 private:
  struct Before;
  Before* before_;
};

// A place for words that nobody is to read.
class Silence {
 public:
  Silence();
  ~Silence();
  Silence(const Silence&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

struct ToolRun {
  std::vector<std::string> words;        // the program is the first, as find_tool() has it
  std::vector<std::string> environment;  // NAME=VALUE, added
  int output = 2;                        // where its standard output goes; what is for people goes to standard error
  std::string folder;                    // to start in; empty: this process's
};

// Runs it to its end and returns its exit code, 128 + n when signal n ended it or came for this process meanwhile: then
// it was told, and has ended. It dies with this process, tidying up. Standard input is empty.
int run_tool(const ToolRun& run);

// What it writes to standard output; nothing when it fails.
std::string output_of(const std::vector<std::string>& words);

}  // namespace trapline::image
