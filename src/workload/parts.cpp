#include "workload/parts.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <initializer_list>

namespace trapline::workload {

namespace {

constexpr u64 kPage = 4096;

u64 mix(u64 sum, u64 value) {
  sum = (sum ^ value) * 0x9e3779b97f4a7c15;
  return sum ^ sum >> 29;
}

// The exit code of the child, or -1.
int wait_for(pid_t child) {
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

[[gnu::noinline]] pid_t start(char* const* arguments) {
  char* const environment[] = {nullptr};
  const pid_t child = ::vfork();
  if (child != 0) return child;
  ::execve(arguments[0], arguments, environment);
  ::_exit(1);
}

volatile sig_atomic_t signals_seen = 0;

}  // namespace

u64 part_compute() {
  static u32 sieve[1 << 14];
  u64 sum = 0;
  for (u32 round = 0; round < 120; round++) {
    ::memset(sieve, 0, sizeof sieve);
    constexpr u32 kBits = 32 << 14;
    for (u32 i = 2; i * i < kBits; i++)
      if (!(sieve[i / 32] >> i % 32 & 1))
        for (u32 k = i * i; k < kBits; k += i) sieve[k / 32] |= 1u << k % 32;
    for (const u32 word : sieve) sum = mix(sum, word + round);
  }
  double x = 0.25;
  for (u32 i = 0; i < 4'000'000; i++) x = 3.75 * x * (1 - x);
  u64 bits;
  ::memcpy(&bits, &x, sizeof bits);
  return mix(sum, bits);
}

u64 part_calls() {
  u64 sum = 0;
  for (u32 i = 0; i < 400'000; i++) sum += static_cast<u64>(::syscall(SYS_getppid)) + 1;
  return sum;
}

u64 part_faults() {
  constexpr u64 kBytes = 32 * MiB;
  u64 sum = 0;
  for (u32 round = 0; round < 3; round++) {
    auto* memory = static_cast<u8*>(
        ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory == MAP_FAILED) return 0;
    ::madvise(memory, kBytes, MADV_NOHUGEPAGE);
    for (u64 at = 0; at < kBytes; at += kPage) memory[at] = static_cast<u8>(at / kPage + round);
    for (u64 at = 0; at < kBytes; at += kPage) sum = mix(sum, memory[at]);
    ::munmap(memory, kBytes);
  }
  return sum;
}

u64 part_mappings() {
  constexpr u64 kBytes = 16 * kPage;
  u64 sum = 0;
  for (u32 i = 0; i < 4'000; i++) {
    auto* memory =
        static_cast<u8*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory == MAP_FAILED) return 0;
    memory[i % 16 * kPage] = static_cast<u8>(i);
    sum += static_cast<u64>(::mprotect(memory, 4 * kPage, PROT_READ) == 0);
    sum = mix(sum, memory[i % 16 * kPage]);
    ::munmap(memory, kBytes);
  }
  return sum;
}

u64 part_fork() {
  u64 sum = 0;
  for (int i = 0; i < 800; i++) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(i & 63);
    sum = mix(sum, static_cast<u64>(wait_for(child)));
  }
  return sum;
}

u64 part_exec() {
  u64 sum = 0;
  char self[] = "/init", word[16] = "";
  ::strcpy(word, kChild);
  char* const arguments[] = {self, word, nullptr};
  for (int i = 0; i < 150; i++) sum = mix(sum, static_cast<u64>(wait_for(start(arguments))));
  return sum;
}

u64 part_switch() {
  int there[2], back[2];
  if (::pipe(there) != 0 || ::pipe(back) != 0) return 0;
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(there[1]);
    u32 word;
    while (::read(there[0], &word, sizeof word) == sizeof word) {
      word = word * 5 + 1;
      if (::write(back[1], &word, sizeof word) != sizeof word) break;
    }
    ::_exit(9);
  }
  u64 sum = 0;
  u32 word = 1;
  for (u32 i = 0; i < 8'000; i++) {
    if (::write(there[1], &word, sizeof word) != sizeof word) break;
    if (::read(back[0], &word, sizeof word) != sizeof word) break;
    sum = mix(sum, word);
  }
  for (const int fd : {there[0], there[1], back[0], back[1]}) ::close(fd);
  return mix(sum, static_cast<u64>(wait_for(child)));
}

u64 part_signals() {
  ::signal(SIGUSR1, [](int) { signals_seen = signals_seen + 1; });
  for (u32 i = 0; i < 15'000; i++) ::raise(SIGUSR1);
  return static_cast<u64>(signals_seen);
}

u64 part_files() {
  u64 sum = 0;
  char block[kPage], name[32];
  for (u32 i = 0; i < 600; i++) {
    ::snprintf(name, sizeof name, "/file%u", i % 50);
    ::memset(block, static_cast<int>(i), sizeof block);
    const int fd = ::open(name, O_CREAT | O_TRUNC | O_RDWR, 0600);
    for (u32 k = 0; k < 4; k++) sum += static_cast<u64>(::write(fd, block, sizeof block));
    block[0] = 0;
    sum += static_cast<u64>(::pread(fd, block, sizeof block, 2 * kPage));
    sum = mix(sum, static_cast<u8>(block[0]));
    ::close(fd);
    if (i % 2) sum += static_cast<u64>(::unlink(name) == 0);
  }
  return sum;
}

u64 part_sleep() {
  u64 sum = 0;
  for (u32 i = 0; i < 60; i++) {
    const timespec pause{0, 1'000'000};
    sum += static_cast<u64>(::nanosleep(&pause, nullptr) == 0);
  }
  return sum;
}

}  // namespace trapline::workload
