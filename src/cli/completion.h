// `trapline completion bash|zsh`: a script that completes commands, options and their values, made of the option list
// itself, so that it cannot name what is not there.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace trapline::cli {

// For ~/.bashrc or share/bash-completion/completions/trapline.
std::string bash_completion(const CLI::App& app);
// For a folder of zsh's fpath, as _trapline.
std::string zsh_completion(const CLI::App& app);

class CompletionCommand {
 public:
  explicit CompletionCommand(CLI::App& app);
  bool parsed() const;
  int run();  // the exit code

 private:
  CLI::App& app_;
  CLI::App* command_;
  std::string shell_;
};

}  // namespace trapline::cli
