#include "share/share_main.h"

#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <latch>
#include <system_error>
#include <thread>
#include <vector>

#include "channel/core_start.h"
#include "channel/share_link.h"
#include "share/link_server.h"
#include "share/sandbox.h"
#include "share/server.h"

namespace trapline::share {

namespace {

using channel::ShareLink;
using channel::ShareState;

constexpr u64 kLongestPoll = 100'000;        // ticks: some 30 us
constexpr std::size_t kOwnDescriptors = 32;  // beside names and open files

// Descriptors that may be open, after what this process needs itself.
std::size_t raise_descriptors() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return std::clamp<std::size_t>(limit.rlim_cur, 64, 1 << 18) - kOwnDescriptors;
}

// Standard error stays.
void close_others(int a, int b) {
  const int low = std::min(a, b), high = std::max(a, b);
  ::close(STDIN_FILENO), ::close(STDOUT_FILENO);
  if (low > 3) ::syscall(SYS_close_range, 3, low - 1, 0);
  if (high > low + 1) ::syscall(SYS_close_range, low + 1, high - 1, 0);
  ::syscall(SYS_close_range, high + 1, ~0u, 0);
}

void refuse(ShareLink& link, const std::string& why) {
  std::strncpy(link.why, why.c_str(), sizeof link.why - 1);
  link.state.set(ShareState::refused);
}

// The threads of slots, which begin once `begin` says so: threads that are there when the filter comes get it, too.
class Threads {
 public:
  Threads(LinkServer& server, channel::Patience patience) {
    for (unsigned slot = 1; slot < channel::kShareSlots; slot++)
      std::thread{[this, &server, patience, slot] {
        up_.count_down();
        begun_.wait(false);
        server.run(slot, patience);
      }}.detach();
    up_.wait();  // the C library has done what it does first in a thread, and the filter would forbid
  }
  void begin() {
    begun_ = true;
    begun_.notify_all();
  }

 private:
  std::latch up_{channel::kShareSlots - 1};
  std::atomic<bool> begun_{false};
};

}  // namespace

int share_main(int argc, char** argv) {
  if (argc != 5) return channel::kCannotStart;
  const int link_fd = std::atoi(argv[2]), folder = std::atoi(argv[3]);
  const bool readonly = std::strcmp(argv[4], "ro") == 0;
  channel::ignore_group_signals();
  harden_process();
  close_others(link_fd, folder);
  void* at = ::mmap(nullptr, sizeof(ShareLink), PROT_READ | PROT_WRITE, MAP_SHARED, link_fd, 0);
  if (at == MAP_FAILED) return channel::kCannotStart;
  ShareLink& link = *static_cast<ShareLink*>(at);
  ::close(link_fd);
  ::umask(0);
  const std::size_t descriptors = raise_descriptors();
  ::mallopt(M_ARENA_MAX, 2);  // address space is limited
  channel::usable_cpus();     // asked while it may be
  Server server{folder, {.readonly = readonly, .most_message = channel::kShareMessage, .most_open = descriptors / 2}};
  LinkServer serves{link, server};
  const channel::Patience patience{channel::usable_cpus() > 1 ? kLongestPoll : 0};
  auto closed_in = restrict_files({folder, readonly});
  std::optional<Threads> threads;
  try {
    if (closed_in) threads.emplace(serves, patience);
  } catch (const std::system_error& error) {
    closed_in = Err{std::string{"--share: no threads: "} + error.what()};
  }
  if (closed_in) closed_in = filter_calls();
  if (!closed_in) {
    refuse(link, closed_in.error());
    ::_exit(1);
  }
  link.state.set(ShareState::ready);
  threads->begin();
  serves.run(0, patience);
}

}  // namespace trapline::share
