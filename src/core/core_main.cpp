// Order matters here: descriptors are used, then closed; threads exist before the filter, so that it covers all of
// them; the first guest byte is looked at after it.
#include "core/core_main.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <thread>

#include "base/trace.h"
#include "base/write.h"
#include "boot/boot.h"
#include "boot/rom.h"
#include "boot/xen.h"
#include "cage/pool.h"
#include "channel/core_start.h"
#include "channel/shared_page.h"
#include "channel/trace_sink.h"
#include "core/device_writes.h"
#include "core/finish.h"
#include "core/images.h"
#include "core/sandbox.h"
#include "core/touch_ahead.h"
#include "core/vcpu_loop.h"
#include "core/vm.h"
#include "engine/common/code_names.h"
#include "engine/common/executed_scan.h"
#include "engine/common/sensitive_counts.h"
#include "engine/vector/vector_unit.h"

namespace trapline::core {

namespace {

std::atomic<u32> g_start{0};  // a futex: 1 once the guest is loaded

[[noreturn]] void refuse(const std::string& why) { finish(channel::EndKind::host_refused, why); }

void map_executed_log(int fd) {
  if (fd < 0) return;
  void* at = ::mmap(nullptr, sizeof(engine::ExecutedLog), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) refuse("--scan-report: no address space for its log");
  engine::executed_log = static_cast<engine::ExecutedLog*>(at);
}

void map_code_names(int fd) {
  if (fd < 0) return;
  void* at = ::mmap(nullptr, sizeof(engine::CodeNames), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) refuse("--perf-map: no address space for its log");
  engine::code_names = static_cast<engine::CodeNames*>(at);
}

void map_counts(int fd, u32 vcpus) {
  if (fd < 0) return;
  void* at = ::mmap(nullptr, u64{vcpus} * sizeof(engine::SensitiveCounts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) refuse("no address space to count instructions in");
  engine::sensitive_counts = static_cast<engine::SensitiveCounts*>(at);
}

// The monitor measures the TSC meanwhile.
void await_clock(channel::VmPage& page) {
  while (page.clock_ready.load(std::memory_order_acquire) == 0) channel::futex_wait(page.clock_ready, 0);
}

void vcpu_thread(VcpuUnit& unit) {
  ::prctl(PR_SET_TIMERSLACK, 1000);  // ns: naps while another vCPU has the CPU are short (CodeMap::step_aside)
  install_alternate_stack();
  g_start.fetch_add(2);  // ready: bit 0 is the start signal
  channel::futex_wake(g_start, 64);
  for (u32 v; !((v = g_start.load(std::memory_order_acquire)) & 1);) channel::futex_wait(g_start, v);
  run_vcpu(unit);
}

void start_threads(Vm& vm) {
  for (auto& unit : vm.vcpus) {
    unit->cpu.code->park(unit->cpu);
    std::thread{[u = unit.get()] { vcpu_thread(*u); }}.detach();
  }
  const u32 all = static_cast<u32>(vm.vcpus.size()) * 2;
  for (u32 v; (v = g_start.load(std::memory_order_acquire)) != all;) channel::futex_wait(g_start, v);
}

void load_firmware(Vm& vm, const boot::BootRequest& request) {
  if (auto loaded = boot::load_rom(vm.ram, request.kernel, request.kernel_name); !loaded)
    finish(channel::EndKind::boot_failed, loaded.error());
  vm.channel.vm().boots.store(static_cast<u32>(channel::Boots::not_linux));
}

void load_kernel(Vm& vm, const boot::BootRequest& request) {
  auto booted = boot::load_kernel(vm.ram, vm.vcpus.front()->cpu, request);
  if (!booted) finish(channel::EndKind::boot_failed, booted.error());
  const bool multiboot =
      booted->format == boot::BootFormat::multiboot1 || booted->format == boot::BootFormat::multiboot2;
  vm.channel.vm().boots.store(static_cast<u32>(multiboot ? channel::Boots::not_linux : channel::Boots::maybe_linux));
}

void load_domain(Vm& vm, const boot::BootRequest& request) {
  if (auto built = boot::load_xen(vm.ram, vm.vcpus.front()->cpu, *vm.xen, request); !built)
    finish(channel::EndKind::boot_failed, built.error());
  vm.channel.vm().boots.store(static_cast<u32>(channel::Boots::maybe_linux));
}

void load_guest(Vm& vm, Images& images, boot::BootRequest request) {
  request.ram_is_zero = true;
  // By CPUID leaf 15 or KVM's leaves; a calibration is wrong or fails where the host takes the vCPU off its CPU.
  const cpu::Cpuid& cpuid = *vm.vcpus.front()->cpu.cpuid;
  if (!cpuid.intel() && !vm.launch.para_kvm) request.tell_tsc_khz = cpuid.tsc_khz();
  request.bring = [&](boot::Bytes from, Gpa to) { return images.bring(from, vm.ram, to); };
  if (vm.xen)
    load_domain(vm, request);
  else if (vm.launch.rom != 0)
    load_firmware(vm, request);
  else
    load_kernel(vm, request);
  set_report_images(nullptr);
  images.release();
}

// Before there are threads, and before guest RAM or an image is mapped: forks are cheap then.
std::unique_ptr<cage::Pool> make_cages(const channel::Launch& launch) {
  const engine::EngineKind* kind = engine::find_engine(launch.engine, launch.cpus);
  if (!kind || !kind->cages || launch.instructions_clock) return nullptr;
  const unsigned each = 8;
  constexpr u64 kCopyPages = 1024;      // of code with patches, a vCPU
  constexpr unsigned kOwnThreads = 12;  // of both processes, beside two for each vCPU
  auto pool = cage::Pool::make(std::min(each * launch.cpus, 48u), launch.ram_fd, kCopyPages * launch.cpus,
                               2 * launch.cpus + kOwnThreads, {}, launch.cpus);
  if (!pool)
    refuse(fmt::format("engine {}: {}: use --engine {}", kind->name, pool.error(), engine::next_engine(*kind).name));
  return std::move(*pool);
}

std::unique_ptr<Vm> set_up(channel::Channel channel, channel::Launch launch, cage::Pool* cages) {
  const devices::DevicePage* devices = channel::SharedPage<devices::DevicePage>::attach(launch.devices_fd);
  if (!devices) refuse("no address space for the devices' page");
  auto ram = GuestMemory::map(launch.ram_fd, launch.memory, {launch.rom, launch.text_screen});
  if (!ram) refuse(ram.error() + ": give a smaller --memory");
  ::madvise(ram->base(), ram->high_end(), MADV_DONTDUMP);
  await_clock(channel.vm());
  std::atomic<u64>* const code_lines = map_code_lines(launch.code_fd, *ram);
  auto vm = Vm::make(std::move(channel), std::move(*ram), std::move(launch), *devices, cages, code_lines);
  if (!vm) finish(channel::EndKind::boot_failed, vm.error());
  if (code_lines != nullptr) serve_code_writes((*vm)->channel.vm().code_writes, *(*vm)->code);
  return std::move(*vm);
}

int number(const char* text) {
  int value = -1;
  std::from_chars(text, text + std::strlen(text), value);
  return value;
}

[[noreturn]] void run(channel::Channel channel) {
  const u32 length = channel.vm().launch_length;
  auto launch = length <= channel::kLaunchBytes ? channel::unpack({channel.launch(), length}) : std::nullopt;
  if (!launch) finish(channel::EndKind::internal_error, "the launch parameters are malformed");
  const int trace_fd = launch->trace_fd;
  const u32 vcpus = launch->cpus;
  const u64 cpu_seconds = launch->cpu_seconds, ram_bytes = launch->memory;
  trace::mask = launch->trace_mask;
  const std::unique_ptr<cage::Pool> cages = make_cages(*launch);
  auto images = Images::open(*launch);
  if (!images) finish(channel::EndKind::boot_failed, images.error());
  set_report_images(&*images);
  const boot::BootRequest request = images->request(*launch);
  map_executed_log(launch->scan_fd);
  map_code_names(launch->names_fd);
  map_counts(launch->counts_fd, vcpus);
  const bool in_turns = launch->instructions_clock;
  const auto vm = set_up(std::move(channel), std::move(*launch), cages.get());
  set_report_vm(vm.get());
  engine::install_vector_signal_handler();
  install_alternate_stack();
  if (channel::usable_cpus() > (in_turns ? 1 : vcpus)) start_touching_ahead();
  if (!in_turns) start_threads(*vm);
  const std::vector<int> orders = cages ? cages->descriptors() : std::vector<int>{};
  std::vector<int> used = images->sources();
  used.push_back(images->ram_fd());
  used.insert(used.end(), orders.begin(), orders.end());
  const int kept = close_descriptors(trace_fd, used);
  channel::open_trace(kept);
  Confinement walls{.trace_fd = kept, .vcpus = vcpus, .cpu_seconds = cpu_seconds, .orders = orders};
  if (cages) walls.processes = cages->processes();
  walls.images = images->sources();
  walls.ram_fd = images->ram_fd();
  walls.ram_bytes = ram_bytes;
  if (auto locked = lock_down(walls); !locked) refuse(locked.error());
  load_guest(*vm, *images, request);
  if (in_turns) run_in_turns(*vm);
  g_start.fetch_or(1, std::memory_order_release);
  channel::futex_wake(g_start, 64);
  for (std::atomic<u32> never{0};;) channel::futex_wait(never, 0);
}

}  // namespace

int core_main(int argc, char** argv) {
  if (argc != 5) {  // channel, vCPUs, own mount namespace
    say(fmt::format("{} is started by `trapline run` only", channel::kCoreCommand));
    return 2;
  }
  const int fd = number(argv[2]), vcpus = number(argv[3]);
  harden_process(number(argv[4]) == 1);
  if (fd < 0 || vcpus < 1 || vcpus > static_cast<int>(channel::kMaxVcpus)) return 2;
  auto channel = channel::Channel::attach(fd, static_cast<u32>(vcpus));
  if (!channel) return channel::kCannotStart;
  set_report_channel(*channel);
  install_crash_handlers();
  run(std::move(*channel));
}

}  // namespace trapline::core
