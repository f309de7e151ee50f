// A power-on: fresh RAM, channel and core process; devices as after RESET.
#include <fmt/format.h>

#include <cstring>

#include "base/guest_memory.h"
#include "channel/futex.h"
#include "machine/virtio_mmio.h"
#include "monitor/huge_file.h"
#include "monitor/vm_run.h"

namespace trapline::monitor {

namespace {

using About = VmError::About;
using Reason = VmError::Reason;

struct Memory {
  Fd ram;
  Fd code;  // for the core to give a size and fill; empty: it makes its own, of small pages
};

Result<Memory, std::string> make_memory(const machine::Config& config) {
  constexpr u64 kCode = 64 * MiB;  // of a vCPU, as if all of it were used
  // A back end of somebody else's gets the file, which therefore needs seals: huge_file.h has none.
  if (config.huge_pages && !config.lends_ram() && roomy_for(config.memory + kCode * config.cpus))
    if (auto files = make_huge_files({{"guest-ram", config.memory}, {"translated-code", 0}}); !files.empty())
      return Memory{std::move(files[0]), std::move(files[1])};
  auto small = GuestMemory::create_fd(config.memory);
  if (!small) return Err{small.error()};
  return Memory{Fd{*small}, {}};
}

Err<VmError> no_channel(const std::string& why) {
  return {VmError{About::channel, Reason::no_shared_memory, {}, 0, 0, why}};
}

Err<VmError> no_memory(Reason reason, u64 bytes, const std::string& why) {
  return {VmError{About::memory, reason, {}, 0, bytes, why}};
}

}  // namespace

Result<void, VmError> VmRun::power_on() {
  MachineState& m = *machine_;
  auto channel = channel::Channel::create(config_.cpus);
  if (!channel) return no_channel(channel.error());
  auto memory = make_memory(config_);
  if (!memory) return no_memory(Reason::no_guest_memory, config_.memory, memory.error());
  auto device_memory = DeviceMemory::create("devices");
  if (!device_memory) return no_channel(device_memory.error());
  CodeLines code_lines;
  const auto launch = launch_for(memory->ram.get(), memory->code.get(), device_memory->fd(), &code_lines);
  if (!launch) return Err{launch.error()};
  const auto bytes = channel::pack(*launch);
  if (bytes.size() > channel::kLaunchBytes)
    return Err{VmError{About::launch, Reason::launch_too_long, {}, 0, bytes.size()}};
  std::memcpy(channel->launch(), bytes.data(), bytes.size());
  channel::VmPage& page = channel->vm();
  page.launch_length = static_cast<u32>(bytes.size());
  page.start_ns = m.deterministic ? m.time.now_ns() : 0;
  m.attach(std::move(*channel), std::move(*device_memory));
  if (m.uses_ram) {
    auto own = GuestMemory::map(memory->ram.get(), config_.memory, {0, config_.display()});
    if (!own) return no_memory(Reason::no_mapping, config_.memory, own.error());
    m.virtio.dma().attach(std::move(*own), std::move(code_lines), page.code_writes);
    m.virtio.attach_ram(memory->ram.get(), config_.memory);
  }
  if (gdb_) gdb_->core_starting(m.channel);
  if (auto started = start_core(*launch); !started) return started;
  publish_clock();
  return {};
}

Result<channel::Launch, VmError> VmRun::launch_for(int ram_fd, int code_fd, int devices_fd, CodeLines* code_lines) {
  const MachineState& m = *machine_;
  channel::Launch launch = images_.launch(config_);
  if (config_.virtio_mmio) {
    launch.virtio_mmio = static_cast<u32>(m.virtio.devices().size());
    launch.command_line += machine::virtio_mmio_words(launch.command_line, launch.virtio_mmio);
  }
  launch.ram_fd = ram_fd;
  launch.code_memory_fd = code_fd;
  launch.devices_fd = devices_fd;
  if (!m.uses_ram) return launch;
  auto made = CodeLines::create(GuestMemory::frames_of(config_.memory, images_.rom != 0));
  if (!made) return Err{made.error()};
  *code_lines = std::move(*made);
  launch.code_fd = code_lines->fd();
  return launch;
}

Result<void, VmError> VmRun::start_core(const channel::Launch& launch) {
  auto descriptors = images_.inherited();
  descriptors.push_back(launch.ram_fd);
  descriptors.push_back(launch.devices_fd);
  for (const int fd : {launch.code_fd, launch.code_memory_fd})
    if (fd >= 0) descriptors.push_back(fd);
  if (auto started = core_.start(machine_->channel, descriptors, config_.perf_map); !started) return started;
  if (!images_.names) return {};
  complain_if(perf_map_.begin(images_.names.get(), core_.pid()));
  if (perf_map_.open()) complain(fmt::format("--perf-map: {}: perf record -p {}", perf_map_.path(), core_.pid()));
  return {};
}

// The core reads its images meanwhile, and then waits for this.
void VmRun::publish_clock() {
  MachineState& m = *machine_;
  channel::VmPage& page = m.channel.vm();
  if (tsc_khz_ == 0) {
    tsc_khz_ = m.deterministic ? 1'000'000 : tsc_.khz();
    if (!m.deterministic) m.time.start(tsc_khz_);
  }
  page.tsc_khz = tsc_khz_;
  page.tsc_offset = ~m.time.origin() + 1;
  page.clock_ready.store(1, std::memory_order_release);
  channel::futex_wake(page.clock_ready);
}

}  // namespace trapline::monitor
