#include "image/tool.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/types.h"

namespace trapline::image {

namespace {

constexpr int kEnding[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
constexpr std::string_view kSystemFolders = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

std::string search_path() {
  const char* path = ::getenv("PATH");
  return (path && *path ? std::string{path} + ":" : std::string{}) + std::string{kSystemFolders};
}

sigset_t ending_and_child() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int s : kEnding) ::sigaddset(&set, s);
  ::sigaddset(&set, SIGCHLD);
  return set;
}

[[noreturn]] void become(const ToolRun& run, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(1);
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0 || ::dup2(null, STDIN_FILENO) < 0 || ::dup2(run.output, STDOUT_FILENO) < 0) ::_exit(126);
  if (!run.folder.empty() && ::chdir(run.folder.c_str()) != 0) ::_exit(126);
  ::setenv("PATH", search_path().c_str(), 1);
  ::setenv("LC_ALL", "C.UTF-8", 1);
  for (const std::string& e : run.environment) ::putenv(const_cast<char*>(e.c_str()));
  for (const int s : kEnding) ::signal(s, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  std::vector<char*> argv;
  argv.reserve(run.words.size() + 1);
  for (const std::string& word : run.words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

int code_of(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

}  // namespace

struct SignalsHeld::Before {
  sigset_t mask;
};

SignalsHeld::SignalsHeld() : before_{new Before} {
  const sigset_t set = ending_and_child();
  ::sigprocmask(SIG_BLOCK, &set, &before_->mask);
}

SignalsHeld::~SignalsHeld() {
  ::sigprocmask(SIG_SETMASK, &before_->mask, nullptr);
  delete before_;
}

Silence::Silence() : fd_{::open("/dev/null", O_WRONLY | O_CLOEXEC)} {}

Silence::~Silence() {
  if (fd_ >= 0) ::close(fd_);
}

std::string find_tool(const std::string& name) {
  const std::string path = search_path();
  for (std::string_view rest = path; !rest.empty();) {
    const auto end = std::min(rest.find(':'), rest.size());
    const std::string candidate = std::string{rest.substr(0, end)} + "/" + name;
    if (end > 0 && ::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return {};
}

int run_tool(const ToolRun& run) {
  const SignalsHeld held;  // SIGCHLD is waited for
  const pid_t parent = ::getpid(), pid = ::fork();
  if (pid == 0) become(run, parent);
  if (pid < 0) return 126;
  const sigset_t set = ending_and_child();
  int asked = 0, status = 0;
  while (::waitpid(pid, &status, WNOHANG) == 0) {
    siginfo_t info;
    const int signal = ::sigwaitinfo(&set, &info);
    if (signal <= 0 || signal == SIGCHLD) continue;
    // From the terminal it went to the whole group.
    if (info.si_code != SI_KERNEL) ::kill(pid, signal);
    asked = signal;
  }
  return asked ? 128 + asked : code_of(status);
}

std::string output_of(const std::vector<std::string>& words) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {};
  const pid_t parent = ::getpid(), pid = ::fork();
  if (pid == 0) {
    const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    ::dup2(null, STDERR_FILENO);
    become({words, {}, ends[1], {}}, parent);
  }
  ::close(ends[1]);
  std::string text;
  char bytes[4096];
  for (ssize_t n; (n = ::read(ends[0], bytes, sizeof bytes)) > 0 || (n < 0 && errno == EINTR);)
    if (n > 0) text.append(bytes, static_cast<std::size_t>(n));
  ::close(ends[0]);
  int status = 0;
  if (pid < 0 || ::waitpid(pid, &status, 0) != pid || status != 0) return {};
  return text;
}

}  // namespace trapline::image
