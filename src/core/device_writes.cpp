#include "core/device_writes.h"

#include <sys/mman.h>

#include <thread>

#include "channel/futex.h"
#include "core/crash_report.h"
#include "core/finish.h"

namespace trapline::core {

std::atomic<u64>* map_code_lines(int fd, const GuestMemory& ram) {
  if (fd < 0) return nullptr;
  void* at = ::mmap(nullptr, ram.frames() * sizeof(u64), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) finish(channel::EndKind::host_refused, "no address space for the map of code");
  return static_cast<std::atomic<u64>*>(at);
}

u32 answer_code_write(channel::CodeWrites& writes, cpu::CodeMap& code, u32 seen) {
  const u32 number = writes.asked.load();
  if (number == seen) return seen;
  const Gpa at{writes.at.load(std::memory_order_relaxed)};
  code.written(at.frame(), static_cast<u32>(at.page_offset()), writes.bytes.load(std::memory_order_relaxed));
  writes.answered.store(number);
  channel::futex_wake(writes.answered);
  return number;
}

void serve_code_writes(channel::CodeWrites& writes, cpu::CodeMap& code) {
  static std::atomic<u32> ready{0};  // a thread that is still being made does what the sandbox forbids
  std::thread{[&writes, &code] {
    install_alternate_stack();
    ready.store(1);
    channel::futex_wake(ready);
    for (u32 seen = 0;;) {
      channel::futex_wait(writes.asked, seen);
      seen = answer_code_write(writes, code, seen);
    }
  }}.detach();
  while (ready.load() == 0) channel::futex_wait(ready, 0);
}

}  // namespace trapline::core
