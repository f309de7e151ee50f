// The VM inside the core process: memory, clock, policy and vCPUs, made before the sandbox closes.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/guest_memory.h"
#include "channel/channel.h"
#include "channel/launch.h"
#include "core/channel_bus.h"
#include "core/debug.h"
#include "core/local_bus.h"
#include "core/xen_host.h"
#include "cpu/clock.h"
#include "cpu/code_map.h"
#include "cpu/cpuid.h"
#include "cpu/lapic.h"
#include "cpu/para.h"
#include "cpu/vcpu.h"
#include "engine/emit/code_arena.h"
#include "engine/registry.h"

namespace trapline::core {

struct Vm;

// One vCPU with all that belongs to it.
struct VcpuUnit {
  // In `space.structure`.
  VcpuUnit(Vm& vm, u32 index, const engine::EngineKind& kind, const engine::EngineOptions& options,
           const engine::VcpuSpace& space);
  ~VcpuUnit();
  VcpuUnit(const VcpuUnit&) = delete;

  Vm& vm;
  channel::VcpuPages& pages;
  ChannelBus bus;
  LocalBus local;  // in front of it
  cpu::Vcpu cpu;
  std::unique_ptr<cpu::Lapic> lapic;
  engine::CodeArena arena;
  std::unique_ptr<engine::Engine> engine;
  std::atomic<u32> wakers{~0u};  // asleep for good: attention bits that would wake it all the same
};

struct EndInPlace {
  void operator()(VcpuUnit* unit) const { unit->~VcpuUnit(); }
};

struct Vm {
  // All parts are ready, and the clock is. cages: of this VM, for engines that run guest code directly; kept.
  // code_lines: cpu::CodeMap's. Error: one line for the user.
  static Result<std::unique_ptr<Vm>, std::string> make(channel::Channel channel, GuestMemory ram,
                                                       channel::Launch launch, const devices::DevicePage& devices,
                                                       cage::Pool* cages = nullptr,
                                                       std::atomic<u64>* code_lines = nullptr);

  channel::Channel channel;
  GuestMemory ram;
  channel::Launch launch;
  cpu::Clock clock;
  cpu::Cpuid cpuid;
  std::unique_ptr<cpu::CodeMap> code;
  std::unique_ptr<cpu::Para> para;
  std::unique_ptr<XenHost> xen_host;  // with the next, under --para xen
  std::unique_ptr<para::xen::Domain> xen;
  engine::HostSpace space;
  std::unique_ptr<LocalDevices> devices;
  std::vector<std::unique_ptr<VcpuUnit, EndInPlace>> vcpus;
  std::unique_ptr<Debugger> debugger;  // under --gdb
  std::atomic<u32> dead_vcpus{0};      // asleep with nothing but INIT, SIPI or NMI to wake them
  std::atomic<u32> wakings{0};         // how often one of these woke

  bool stopping() const { return channel.vm().stop.load(std::memory_order_acquire) != 0; }
};

}  // namespace trapline::core
