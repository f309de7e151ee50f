#include "core/finish.h"

#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <new>
#include <system_error>

#include "base/host_refused.h"
#include "base/invariant.h"
#include "base/trace.h"
#include "channel/core_start.h"
#include "channel/futex.h"
#include "channel/trace_sink.h"
#include "core/images.h"
#include "core/vm.h"
#include "engine/verify/lockstep.h"

namespace trapline::core {

namespace {

channel::VmPage* g_page = nullptr;
Vm* g_vm = nullptr;
const Images* g_images = nullptr;
thread_local const cpu::Vcpu* t_vcpu = nullptr;
thread_local bool t_claimed = false;

[[noreturn]] void sleep_for_good() {
  std::atomic<u32> never{0};
  for (;;) channel::futex_wait(never, 0);
}

void publish_stats() {
  if (!g_vm) return;
  for (auto& unit : g_vm->vcpus) {
    unit->pages.stats.retired = unit->cpu.retired;
    unit->pages.stats.count = unit->cpu.count;
  }
  channel::VcpuStats& first = g_vm->vcpus.front()->pages.stats;
  first.verified_stretches = engine::verify::compared().stretches;
  first.verified_instructions = engine::verify::compared().instructions;
}

// Plain copies only: may run in a signal handler.
[[noreturn]] void publish(channel::EndKind kind, std::string_view text) {
  if (!g_page) ::_exit(channel::kNoReportYet);
  if (t_claimed) ::_exit(channel::kReportFailed);
  if (g_page->report.claimed.exchange(1) != 0) sleep_for_good();
  t_claimed = true;
  publish_stats();
  g_page->trace_error = static_cast<u32>(channel::trace_error());
  const std::size_t n = std::min<std::size_t>(text.size(), channel::kReportBytes);
  std::memcpy(g_page->report.text, text.data(), n);
  g_page->report.length = static_cast<u32>(n);
  g_page->report.kind.store(static_cast<u32>(kind), std::memory_order_release);
  ::_exit(0);
}

const char* name_of_signal(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "SIGSEGV";
    case SIGBUS:
      return "SIGBUS";
    case SIGILL:
      return "SIGILL";
    case SIGABRT:
      return "SIGABRT";
    default:
      return "signal";
  }
}

bool in_guest_ram(const void* address) {
  if (!g_vm || !g_vm->ram.base()) return false;
  const auto at = reinterpret_cast<u64>(address), base = reinterpret_cast<u64>(g_vm->ram.base());
  return at >= base && at - base < g_vm->ram.high_end();
}

void on_signal(int signal, siginfo_t* info, void* context) {
  if (signal == SIGBUS && in_guest_ram(info->si_addr))
    publish(channel::EndKind::host_memory, "the host has no memory left for the guest's RAM");
  if (const char* what = signal == SIGBUS && g_images ? g_images->holds(info->si_addr) : nullptr)
    publish(channel::EndKind::boot_failed, std::string{what} + ": the file was cut short while it was read");
  const auto* uc = static_cast<const ucontext_t*>(context);
  char text[512];
  const int n = std::snprintf(
      text, sizeof text,
      "%s in the core at host rip %llx, address %p; vcpu %d, guest rip %llx, %llu instructions retired",
      name_of_signal(signal), static_cast<unsigned long long>(uc->uc_mcontext.gregs[REG_RIP]), info->si_addr,
      t_vcpu ? static_cast<int>(t_vcpu->index) : -1, t_vcpu ? static_cast<unsigned long long>(t_vcpu->rip) : 0,
      t_vcpu ? static_cast<unsigned long long>(t_vcpu->retired) : 0);
  publish(channel::EndKind::internal_error, {text, static_cast<std::size_t>(std::clamp<int>(n, 0, sizeof text - 1))});
}

[[noreturn]] void on_invariant(const char* file, int line, const std::string& message) {
  finish(channel::EndKind::internal_error,
         fmt::format("{}:{}: {}; vcpu {}, guest rip {:#x}, {} instructions retired", file, line, message,
                     t_vcpu ? static_cast<int>(t_vcpu->index) : -1, t_vcpu ? t_vcpu->rip : 0,
                     t_vcpu ? t_vcpu->retired : 0));
}

// An exception that nobody catches: what the host refuses comes from constructors and threads.
[[noreturn]] void on_terminate() {
  try {
    if (const auto thrown = std::current_exception()) std::rethrow_exception(thrown);
  } catch (const HostRefused& refused) {
    publish(channel::EndKind::host_refused, refused.what());
  } catch (const std::system_error& error) {
    publish(channel::EndKind::host_refused,
            fmt::format("no thread for a vCPU: {}: raise the limits of processes and memory (ulimit -u, ulimit -d)",
                        error.code().message()));
  } catch (const std::exception& error) {
    publish(channel::EndKind::internal_error, fmt::format("an exception escaped in the core: {}", error.what()));
  } catch (...) {
  }
  publish(channel::EndKind::internal_error, "an exception escaped in the core");
}

[[noreturn]] void on_no_memory() {
  publish(channel::EndKind::host_memory, "the host has no memory left for the core's own tables");
}

}  // namespace

// By a mapping of its own, which outlives the channel: setting up the VM may fail, and has taken it.
void set_report_channel(const channel::Channel& channel) {
  void* const at = ::mmap(nullptr, sizeof(channel::VmPage), PROT_READ | PROT_WRITE, MAP_SHARED, channel.fd(), 0);
  g_page = at == MAP_FAILED ? &channel.vm() : static_cast<channel::VmPage*>(at);
}
void set_report_vm(Vm* vm) { g_vm = vm; }
void set_report_images(const Images* images) { g_images = images; }
void set_current_vcpu(const cpu::Vcpu* cpu) {
  t_vcpu = cpu;
  trace::set_vcpu(cpu ? static_cast<int>(cpu->index) : -1);
}

void finish(channel::EndKind kind, std::string_view text) {
  channel::flush_trace();
  publish(kind, text);
}

void install_crash_handlers() {
  set_invariant_handler(on_invariant);
  std::set_terminate(on_terminate);
  std::set_new_handler(on_no_memory);
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGABRT}) ::sigaction(signal, &action, nullptr);
}

void install_alternate_stack() {
  const auto least = static_cast<u64>(MINSIGSTKSZ);
  const u64 frame = std::max<u64>(::getauxval(AT_MINSIGSTKSZ), least);  // beyond 8 KiB where the host has AMX
  const u64 bytes = (frame + 64 * KiB + kPageSize - 1) & kPageMask;
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return;
  const stack_t stack{at, 0, bytes};
  ::sigaltstack(&stack, nullptr);
}

}  // namespace trapline::core
