#include "monitor/helper_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace trapline::monitor {

namespace {

constexpr int kTheirDescriptor = 3;  // the first that sd_listen_fds(3) has
constexpr char kListenPid[] = "LISTEN_PID=";

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> all;
  all.reserve(words.size() + 1);
  for (std::string& word : words) all.push_back(word.data());
  all.push_back(nullptr);
  return all;
}

// Between fork and exec: no memory is asked for.
void write_number(char* at, unsigned value) {
  char digits[16];
  unsigned n = 0;
  do digits[n++] = static_cast<char>('0' + value % 10);
  while ((value /= 10) != 0);
  while (n > 0) *at++ = digits[--n];
  *at = 0;
}

[[noreturn]] void become(const HelperStart& start, char* const* argv, char* const* environment) {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(null, 0);
  ::dup2(start.output >= 0 ? start.output : null, 1);
  ::dup2(1, 2);
  if (start.descriptor == kTheirDescriptor)
    ::fcntl(kTheirDescriptor, F_SETFD, 0);
  else if (start.descriptor >= 0)
    ::dup2(start.descriptor, kTheirDescriptor);
  // Signals of the terminal, and to the whole group, are the monitor's to answer.
  ::setpgid(0, 0);
  for (const int number : {SIGINT, SIGQUIT, SIGTSTP, SIGHUP, SIGTTIN, SIGTTOU}) ::signal(number, SIG_IGN);
  ::signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (!start.files || start.files->apply()) ::execve(start.program.c_str(), argv, environment);
  ::_exit(127);
}

}  // namespace

HelperProcess::~HelperProcess() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void HelperProcess::await_end(std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (pid_ > 0) {
    const pid_t ended = ::waitpid(pid_, nullptr, WNOHANG);
    if (ended == pid_ || (ended < 0 && errno == ECHILD)) pid_ = -1;
    if (pid_ < 0 || std::chrono::steady_clock::now() > until) return;
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
}

std::optional<std::string> find_program(const std::string& name) {
  const char* path = ::getenv("PATH");
  std::string folders = path ? path : "";
  folders += ":/usr/local/bin:/usr/bin:/bin:/usr/lib/qemu:/usr/libexec";
  for (std::size_t at = 0; at < folders.size();) {
    const std::size_t end = std::min(folders.find(':', at), folders.size());
    std::string whole = folders.substr(at, end - at) + "/" + name;
    if (end > at && folders[at] == '/' && ::access(whole.c_str(), X_OK) == 0) return whole;
    at = end + 1;
  }
  return std::nullopt;
}

Result<HelperProcess, int> start_helper(const HelperStart& start) {
  std::vector<std::string> words = start.arguments, environment = start.environment;
  words.insert(words.begin(), start.program);
  if (start.activated) {
    environment.emplace_back("LISTEN_FDS=1");
    environment.push_back(kListenPid + std::string(16, '0'));
  }
  const std::vector<char*> argv = pointers(words), envp = pointers(environment);
  char* const listen_pid = start.activated ? environment.back().data() + sizeof kListenPid - 1 : nullptr;
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {  // system calls only
    ::prctl(PR_SET_PDEATHSIG, start.death_signal);
    if (::getppid() != parent) ::_exit(1);
    if (listen_pid) write_number(listen_pid, static_cast<unsigned>(::getpid()));
    become(start, argv.data(), envp.data());
  }
  if (pid < 0) return Err{errno};
  return HelperProcess{pid};
}

Result<HelperWords, int> HelperWords::create() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return Err{errno};
  HelperWords words;
  words.ours_ = Fd{ends[0]};
  words.theirs_ = Fd{ends[1]};
  return words;
}

std::string HelperWords::last_line() const {
  std::string text;
  std::array<char, 4096> some{};
  for (ssize_t n = 0; (n = ::read(ours_.get(), some.data(), some.size())) > 0;)
    text.append(some.data(), static_cast<std::size_t>(n));
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  text.erase(0, text.rfind('\n') + 1);
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  return text;
}

}  // namespace trapline::monitor
