#include "monitor/share_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "monitor/child_start.h"

namespace trapline::monitor {

using channel::ShareLink;
using channel::ShareTurn;

namespace {

constexpr u64 kLongestPoll = 100'000;     // ticks: some 30 us
constexpr u64 kLookAgainNs = 50'000'000;  // is it still there?

using About = VmError::About;
using Reason = VmError::Reason;

Result<Fd, VmError> make_link(ShareLink*& link) {
  Fd fd{::memfd_create("share", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  void* at = MAP_FAILED;
  if (fd && ::ftruncate(fd.get(), sizeof(ShareLink)) == 0)
    at = ::mmap(nullptr, sizeof(ShareLink), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return Err{VmError{About::share, Reason::no_shared_memory, {}, errno}};
  ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);  // an access is never past the end
  link = new (at) ShareLink;
  return fd;
}

}  // namespace

ShareProcess::~ShareProcess() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  if (link_) ::munmap(link_, sizeof(ShareLink));
}

Result<void, VmError> ShareProcess::start(const std::string& folder, bool readonly) {
  // Readable, not just reachable: a user without a right to look into it is told now.
  const Fd directory{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!directory) return Err{VmError{About::share, Reason::cannot_open, folder, errno}};
  auto memory = make_link(link_);
  if (!memory) return Err{memory.error()};
  std::string words[] = {"trapline", channel::kShareCommand, std::to_string(memory->get()),
                         std::to_string(directory.get()), readonly ? "ro" : "rw"};
  char* argv[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), words[4].data(), nullptr};
  const std::vector<int> descriptors{memory->get(), directory.get()};
  int lifeline[2] = {-1, -1};
  // A socket hangs up on both sides: gone() asks for that.
  const bool piped = ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lifeline) == 0;
  const pid_t pid = piped ? ::fork() : -1;
  if (pid == 0) become_child(argv, descriptors, lifeline);
  const int error = errno;
  lifeline_ = Fd{lifeline[1]};
  if (piped) ::close(lifeline[0]);
  if (pid < 0) return Err{VmError{About::share, Reason::no_process, folder, error}};
  pid_ = pid;
  folder_ = folder;
  return {};
}

Result<void, VmError> ShareProcess::await_ready() {
  while (link_->turn.load(std::memory_order_acquire) == ShareTurn::starting)
    if (!wait()) return Err{VmError{About::share, Reason::ended_early, folder_}};
  if (link_->turn == ShareTurn::refused) {
    char why[sizeof link_->why];
    std::memcpy(why, link_->why, sizeof why);
    return Err{VmError{About::share, Reason::gave_up, folder_, 0, 0, std::string{why, ::strnlen(why, sizeof why)}}};
  }
  patience_ = channel::Patience{channel::usable_cpus() > 1 ? kLongestPoll : 0};
  return {};
}

std::span<const u8> ShareProcess::ask(std::size_t length) {
  link_->request_length = static_cast<u32>(std::min<std::size_t>(length, channel::kShareMessage));
  link_->set(ShareTurn::requested);
  while (link_->turn.load(std::memory_order_acquire) != ShareTurn::replied)
    if (letting_go_ || !wait()) return {};
  return {link_->reply, std::min<std::size_t>(link_->reply_length, channel::kShareMessage)};
}

bool ShareProcess::wait() {
  const ShareTurn now = link_->turn.load(std::memory_order_acquire);
  if (now != ShareTurn::starting && now != ShareTurn::requested) return true;
  if (patience_.wait([&] { return link_->turn.load(std::memory_order_acquire) != now; })) return true;
  link_->sleep(now, kLookAgainNs);
  return link_->turn.load(std::memory_order_acquire) != now || !gone();
}

void ShareProcess::settle() {
  while (link_->turn.load(std::memory_order_acquire) == ShareTurn::requested && wait()) {
  }
}

bool ShareProcess::gone() const {
#ifdef __SANITIZE_ADDRESS__
  return false;  // its standard error is not the lifeline there
#else
  pollfd other{lifeline_.get(), 0, 0};
  return ::poll(&other, 1, 0) == 1;
#endif
}

}  // namespace trapline::monitor
