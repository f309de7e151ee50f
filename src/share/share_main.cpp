#include "share/share_main.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "channel/core_start.h"
#include "channel/share_link.h"
#include "share/sandbox.h"
#include "share/server.h"

namespace trapline::share {

namespace {

using channel::ShareLink;
using channel::ShareTurn;

constexpr u64 kLongestPoll = 100'000;  // ticks: some 30 us

// Descriptors that may be open, after what this process needs itself.
std::size_t raise_descriptors() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return std::clamp<std::size_t>(limit.rlim_cur, 64, 1 << 18) - 16;
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
  link.set(ShareTurn::refused);
}

[[noreturn]] void serve(ShareLink& link, Server& server) {
  channel::Patience patience{channel::usable_cpus() > 1 ? kLongestPoll : 0};
  for (;;) {
    const ShareTurn now = link.turn.load(std::memory_order_acquire);
    if (now != ShareTurn::requested) {
      if (!patience.wait([&] { return link.turn.load(std::memory_order_acquire) != now; })) link.sleep(now, ~u64{0});
      continue;
    }
    const std::size_t length = std::min<std::size_t>(link.request_length, channel::kShareMessage);
    link.reply_length = static_cast<u32>(server.serve({link.request, length}, {link.reply, channel::kShareMessage}));
    link.set(ShareTurn::replied);
  }
}

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
  channel::usable_cpus();  // asked while it may be
  Server server{folder, {.readonly = readonly, .most_message = channel::kShareMessage, .most_open = descriptors / 2}};
  if (auto closed_in = lock_down({folder, readonly}); !closed_in) {
    refuse(link, closed_in.error());
    return 1;
  }
  link.set(ShareTurn::idle);
  serve(link, server);
}

}  // namespace trapline::share
