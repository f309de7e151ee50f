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
using channel::ShareSlot;
using channel::ShareState;
using channel::ShareTurn;

namespace {

constexpr u64 kLongestPoll = 100'000;     // ticks: some 30 us
constexpr u64 kLookAgainNs = 50'000'000;  // is it still there?
constexpr u64 kMomentNs = 1'000'000;

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
  while (link_->state.get() == ShareState::starting) {
    link_->state.sleep(ShareState::starting, kLookAgainNs);
    if (link_->state.get() == ShareState::starting && gone())
      return Err{VmError{About::share, Reason::ended_early, folder_}};
  }
  if (link_->state.get() == ShareState::refused) {
    char why[sizeof link_->why];
    std::memcpy(why, link_->why, sizeof why);
    return Err{VmError{About::share, Reason::gave_up, folder_, 0, 0, std::string{why, ::strnlen(why, sizeof why)}}};
  }
  patience_ = channel::Patience{channel::usable_cpus() > 1 ? kLongestPoll : 0};
  return {};
}

void ShareProcess::post(unsigned index, std::size_t length, u16 tag) {
  ShareSlot& slot = link_->slots[index];
  slot.request_length = static_cast<u32>(std::min<std::size_t>(length, channel::kShareMessage));
  slot.tag = tag;
  slot.order = ++posted_;
  slot.turn.set(ShareTurn::requested);
}

bool ShareProcess::busy(unsigned slot) const { return link_->slots[slot].turn.get() == ShareTurn::requested && !gone_; }

bool ShareProcess::await(unsigned index, bool as_long_as_it_takes) {
  channel::SharedWord<ShareTurn>& turn = link_->slots[index].turn;
  if (patience_.wait([&] { return answered(index); })) return true;
  do {
    turn.sleep(ShareTurn::requested, kMomentNs);
    if (answered(index)) return true;
  } while (as_long_as_it_takes && !gone());
  return answered(index);
}

std::span<const u8> ShareProcess::reply(unsigned index) {
  ShareSlot& slot = link_->slots[index];
  if (slot.turn.get() != ShareTurn::replied) return {};
  return {slot.reply, std::min<std::size_t>(slot.reply_length, channel::kShareMessage)};
}

void ShareProcess::await_more(u32 seen) {
  if (answers() != seen || letting_go_) return;
  link_->answers.sleep(seen, kLookAgainNs);
  if (answers() == seen) gone();
}

void ShareProcess::let_go(bool on) {
  letting_go_ = on;
  link_->answers.wake();
}

void ShareProcess::settle() {
  for (unsigned i = 0; i < slots(); i++)
    while (busy(i)) {
      link_->slots[i].turn.sleep(ShareTurn::requested, kLookAgainNs);
      if (busy(i)) gone();
    }
}

bool ShareProcess::gone() {
#ifdef __SANITIZE_ADDRESS__
  return false;  // its standard error is not the lifeline there
#else
  pollfd other{lifeline_.get(), 0, 0};
  if (::poll(&other, 1, 0) == 1) gone_ = true;
  return gone_;
#endif
}

}  // namespace trapline::monitor
