#include "core/vm.h"

#include <algorithm>
#include <new>

#include "base/host_refused.h"
#include "base/trace.h"
#include "core/finish.h"
#include "cpu/mmu.h"
#include "cpu/msr_memory_type.h"
#include "engine/registry.h"
#include "engine/verify/lockstep.h"
#include "para/kvm/kvm.h"
#include "para/xen/hidden_features.h"

namespace trapline::core {

namespace {

void wake_peer(void* context, u32 index) {
  auto& vm = *static_cast<Vm*>(context);
  if (index < vm.channel.vcpus()) channel::wake(vm.channel.vcpu(index));
}

void connect_lapics(Vm& vm) {
  std::vector<cpu::Lapic::Peer> peers;
  for (auto& u : vm.vcpus) peers.push_back({u->lapic.get(), &u->pages.inbox, &u->pages.mirror, &u->pages.attention});
  for (auto& u : vm.vcpus) u->lapic->connect(peers, wake_peer, &vm);
}

}  // namespace

VcpuUnit::VcpuUnit(Vm& v, u32 index, const engine::EngineKind& kind, const engine::EngineOptions& options,
                   const engine::VcpuSpace& space)
    : vm{v},
      pages{v.channel.vcpu(index)},
      bus{pages, v.channel.vcpus(), v.launch.instructions_clock},
      local{*v.devices, bus},
      arena{kind.arena_bytes} {
  cpu.index = index;
  cpu.ram = &v.ram;
  cpu.ram_base = v.ram.base();
  cpu.bus = &local;
  cpu.clock = &v.clock;
  cpu.code = v.code.get();
  cpu.cpuid = &v.cpuid;
  cpu.para = v.para.get();
  cpu.hypervisor = v.xen.get();
  if (v.xen) v.xen->add_vcpu(cpu);
  cpu.attention = &pages.attention;
  cpu.sleep_word = &pages.sleep;
  cpu::mmu_create(cpu);
  lapic = std::make_unique<cpu::Lapic>(cpu, pages.inbox, pages.mirror);
  cpu.lapic = lapic.get();
  cpu::reset(cpu, false);
  if (v.launch.rom == 0) cpu::set_up_mtrrs_as_firmware(cpu);  // there is none to do it
  cpu.activity = index == 0 ? cpu::Activity::running : cpu::Activity::wait_for_sipi;
  v.code->add_vcpu(&cpu);
  engine = kind.make(cpu, arena, space, options);
}

VcpuUnit::~VcpuUnit() {
  engine.reset();
  cpu::mmu_destroy(cpu);
}

namespace {

Result<engine::EngineOptions, std::string> options_of(const channel::Launch& launch) {
  engine::EngineOptions options;
  options.count_instructions = launch.count_instructions;
  options.hot_threshold = std::max(launch.hot_threshold, 1u);
  options.traps = launch.patch_traps;
  options.dump_guest = launch.dump_guest, options.dump_host = launch.dump_host;
  options.miscompile = {launch.miscompile_at, static_cast<engine::Miscompile::How>(launch.miscompile_how)};
  auto debug = engine::DebugOptions::parse(launch.engine_debug);
  if (!debug) return Err{debug.error()};
  options.debug = *debug;
  if (launch.verify)
    options.on_difference = [](const std::string& report) { finish(channel::EndKind::verify_failed, report); };
  return options;
}

}  // namespace

Result<std::unique_ptr<Vm>, std::string> Vm::make(channel::Channel channel, GuestMemory ram, channel::Launch launch,
                                                  const devices::DevicePage& devices, cage::Pool* cages,
                                                  std::atomic<u64>* code_lines) {
  const engine::EngineKind* kind = engine::find_engine(launch.engine, launch.cpus);
  if (!kind) return Err{fmt::format("engine {}: not built into this version", launch.engine)};
  // Before the heap grows, or anything else takes the places.
  auto space = engine::HostSpace::reserve(launch.cpus, sizeof(VcpuUnit), kind->needs, launch.code_memory_fd);
  if (!space) {
    const u32 fit = space.error();
    const std::string_view frugal = engine::frugal_engine().name;
    throw HostRefused{fmt::format(
        "engine {}: this host lacks address space for {} vCPUs: {}", kind->name, launch.cpus,
        fit ? fmt::format("there is room for {}: use --cpus {} or --engine {}", fit, fit, frugal)
            : fmt::format("there is room for none: raise its limit (ulimit -v), or use --engine {}", frugal))};
  }
  cpu::set_split_locks_trap(launch.split_locks_trap);
  auto options = options_of(launch);
  if (!options) return Err{options.error()};
  const bool launch_cages = cages != nullptr;
  auto vm = std::make_unique<Vm>();
  vm->space = std::move(*space);
  vm->channel = std::move(channel);
  vm->ram = std::move(ram);
  vm->launch = std::move(launch);
  const channel::VmPage& page = vm->channel.vm();
  vm->clock.instructions = vm->launch.instructions_clock;
  vm->clock.tsc_khz = page.tsc_khz;
  vm->clock.tsc_offset = page.tsc_offset;
  if (launch_cages) vm->clock.guest_origin = ~page.tsc_offset + 1;
  vm->clock.virtual_base = vm->clock.ns_to_tsc(page.start_ns);
  // Run directly they show the number of the host's CPU, and a trap in their place costs a vDSO's clock a stop each time.
  std::string features = launch_cages ? "-rdpid,-rdtscp" : "";
  if (vm->launch.para_xen) features += (features.empty() ? "" : ",") + std::string(para::xen::kHiddenFeatures);
  if (!vm->launch.cpu_features.empty()) features += (features.empty() ? "" : ",") + vm->launch.cpu_features;
  auto cpuid = cpu::Cpuid::make({.cpus = vm->launch.cpus,
                                 .para_kvm = vm->launch.para_kvm,
                                 .para_xen = vm->launch.para_xen,
                                 .tsc_khz = page.tsc_khz,
                                 .features = features,
                                 .para_steal = !vm->launch.instructions_clock});
  if (!cpuid) return Err{cpuid.error()};
  vm->cpuid = std::move(*cpuid);
  vm->code = std::make_unique<cpu::CodeMap>(vm->ram, code_lines);
  if (vm->launch.para_kvm) {
    const u64 wall = vm->clock.instructions ? channel::kFixedWallNs : para::Kvm::wall_ns_from_host(vm->clock);
    vm->para = std::make_unique<para::Kvm>(vm->clock, wall);
  }
  if (vm->launch.para_xen) {
    const u64 backend_frames =
        vm->launch.xen_disks * para::xen::kDiskFrames + vm->launch.xen_networks * para::xen::kNetworkFrames;
    const auto layout = para::xen::Layout::of(vm->ram, vm->launch.cpus, backend_frames);
    if (!layout) return Err{std::string("--para xen: too little guest memory: give --memory 128M or more")};
    const u64 wall = vm->clock.instructions ? channel::kFixedWallNs : para::Kvm::wall_ns_from_host(vm->clock);
    vm->xen_host = std::make_unique<XenHost>(*vm);
    vm->xen = std::make_unique<para::xen::Domain>(vm->ram, *layout, vm->clock, wall, vm->launch.cpus, *vm->xen_host);
  }
  // Each byte is a request where a trace shows what devices do, so that its lines stay in order.
  const bool posts = !(trace::mask & trace::devices);
  vm->devices = std::make_unique<LocalDevices>(devices, vm->channel.vm().serial, posts,
                                               posts && !vm->clock.instructions ? vm->channel.vm().doorbells : nullptr);
  for (u32 i = 0; i < vm->launch.cpus; i++) {
    static_assert(alignof(VcpuUnit) <= kPageSize);
    options->cages = {cages, i, vm->launch.cpus};
    vm->vcpus.emplace_back(new (vm->space[i].structure) VcpuUnit{*vm, i, *kind, *options, vm->space[i]});
  }
  connect_lapics(*vm);
  if (vm->launch.debugger) vm->debugger = std::make_unique<Debugger>(*vm);
  return vm;
}

}  // namespace trapline::core
