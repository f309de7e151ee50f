#include "cli/options.h"

#include <fmt/format.h>
#include <algorithm>

#include <CLI/CLI.hpp>
#include <charconv>

#include "base/trace.h"
#include "cli/disk_option.h"
#include "cli/firmware_option.h"
#include "cli/net_option.h"
#include "cli/vsock_option.h"
#include "cpu/cpuid.h"
#include "engine/registry.h"
#include "monitor/registry.h"

namespace trapline::cli {

namespace {

using machine::ClockChoice;
using machine::Config;
using machine::ParaChoice;

template <class T>
struct Choice {
  const char* name;
  T value;
};

template <class T, std::size_t N>
std::optional<T> choose(const Choice<T> (&choices)[N], const std::string& name) {
  for (const auto& c : choices)
    if (name == c.name) return c.value;
  return std::nullopt;
}

constexpr Choice<ParaChoice> kParas[] = {
    {"none", ParaChoice::none}, {"kvm", ParaChoice::kvm}, {"xen", ParaChoice::xen}, {"auto", ParaChoice::automatic}};
constexpr Choice<ClockChoice> kClocks[] = {{"real", ClockChoice::real}, {"instructions", ClockChoice::instructions}};

std::string check_engine(const std::string& name, Config& c) {
  const u32 cpus = std::clamp(c.cpus, 1u, kMostCpus);  // a wrong number is named by check_cpus
  const auto* engine = engine::find_engine(name, cpus);
  if (!engine) return fmt::format("--engine {}{}", name, engine::no_engine());
  if (const std::string lacks = engine->missing(cpus); !lacks.empty())
    return fmt::format("--engine {}: this host lacks {}; use --engine auto", name, lacks);
  c.engine = engine->name;
  if (const engine::EngineKind& best = engine::engines().front(); name == "auto" && engine != &best)
    c.note =
        fmt::format("--engine auto takes {}: for {} this host lacks {}", engine->name, best.name, best.missing(cpus));
  return {};
}

std::string check_para(const std::string& name, Config& c) {
  const auto para = choose(kParas, name);
  if (!para) return fmt::format("--para {}: no such interface: use none, kvm, xen or auto", name);
  c.para = *para;
  return {};
}

std::string check_clock(const std::string& name, Config& c) {
  const auto clock = choose(kClocks, name);
  if (!clock) return fmt::format("--clock {}: no such clock: use real or instructions", name);
  c.clock = *clock;
  return {};
}

std::string check_memory(const std::string& given, Config& c) {
  const std::string text = given.empty() ? kMemory : given;
  const auto size = parse_size(text);
  if (!size) return fmt::format("--memory {}: not a size: write 512M or 4G", text);
  if (*size < kLeastMemory) return fmt::format("--memory {}: too little: give 64M or more", text);
  if (*size > kMostMemory) return fmt::format("--memory {}: too much: give 256G or less", text);
  if (*size % kPageSize != 0) return fmt::format("--memory {}: give a multiple of 4K", text);
  c.memory = *size;
  return {};
}

std::string check_trace(const std::string& areas, Config& c) {
  std::string bad;
  const auto mask = trace::parse(areas, &bad);
  if (!mask) return fmt::format("--trace {}: no such area: use {}", bad, trace::names());
  c.trace_mask = *mask;
  if (!c.trace_file.empty() && c.trace_mask == 0 && !c.dump_guest && !c.dump_host)
    return "--trace-file: nothing is traced: give --trace or --dump too";
  return {};
}

std::string check_cpus(Config& c) {
  if (c.cpus < 1 || c.cpus > kMostCpus) return fmt::format("--cpus {}: give 1 to {}", c.cpus, kMostCpus);
  const auto cpuid = cpu::Cpuid::make(
      {.cpus = c.cpus, .para_kvm = c.para == ParaChoice::kvm, .tsc_khz = 1'000'000, .features = c.cpu_features});
  return cpuid ? std::string{} : fmt::format("--cpu-features {}: {}", c.cpu_features, cpuid.error());
}

std::string check_verify(Config& c) {
  if (!c.verify) return {};
  if (!engine::find_engine(c.engine)->verifiable)
    return fmt::format("--verify: engine {} is what others are compared with: use --engine translate", c.engine);
  if (c.cpus > 1 && c.clock != ClockChoice::instructions)
    return "--verify: other vCPUs would change memory under the comparison: give --cpus 1, or --clock instructions, "
           "which runs them in turns";
  return {};
}

// What a domain without devices cannot have.
std::string check_xen(const Config& c) {
  if (c.para != ParaChoice::xen) return {};
  const auto refuse = [](const char* what) { return fmt::format("--para xen: {}: use --para kvm", what); };
  if (!c.firmware.empty()) return refuse("a firmware runs on a machine, not on a hypervisor");
  if (!c.modules.empty()) return refuse("a Xen PV guest takes --initrd, no --module");
  if (c.verify) return "--verify does not know hypercalls: use --para kvm or none";
  if (!c.shares.empty() || c.vsock.cid != 0 || c.balloon || c.rng)
    return refuse("shares, sockets, balloon and entropy are devices that a Xen PV guest does not see");
  if (c.virtio_mmio) return "--para xen: a Xen PV guest sees no virtio device: leave --virtio-transport out";
  return {};
}

std::string check_patch_with(const std::string& what, Config& c) {
  if (what != "inline" && what != "traps")
    return fmt::format("--patch-with {}: no such replacement: use inline or traps", what);
  c.engine_settings.traps = what == "traps";
  if (c.engine_settings.traps && !engine::find_engine(c.engine)->cages)
    return fmt::format("--patch-with traps: engine {} patches nothing: use --engine patch", c.engine);
  return {};
}

// "guest", "host" or both.
std::string check_dump(const std::string& what, Config& c) {
  std::string_view rest = what;
  while (!rest.empty()) {
    const auto comma = rest.find(',');
    const auto word = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
    if (word == "guest")
      c.dump_guest = true;
    else if (word == "host")
      c.dump_host = true;
    else
      return fmt::format("--dump {}: give guest, host or guest,host", what);
  }
  return {};
}

// A TCP port, or the path of a socket.
std::string check_gdb(const std::string& where, Config& c) {
  if (where.find('/') != std::string::npos) {
    c.gdb_socket = where;
    constexpr std::size_t kLongest = 107;  // sockaddr_un, and its zero
    if (where.size() > kLongest)
      return fmt::format("--gdb {}: {} bytes: a socket's path has {} at most", where, where.size(), kLongest);
    return {};
  }
  if (!where.empty()) {
    const auto [end, error] = std::from_chars(where.data(), where.data() + where.size(), c.gdb_port);
    if (error != std::errc{} || end != where.data() + where.size() || c.gdb_port == 0)
      return fmt::format("--gdb {}: give a port from 1 to 65535, or the path of a socket: ./{}", where, where);
  }
  if (c.gdb_wait && where.empty()) return "--gdb-wait: nobody could say so: give --gdb PORT too";
  return {};
}

std::string check_disks(const RunOptions& o, Config& c) {
  constexpr std::size_t kMost = 30;  // PCI slots, beside the other devices
  for (const std::string& text : o.disks) {
    auto disk = parse_disk(text);
    if (!disk) return disk.error();
    c.disks.push_back(std::move(*disk));
  }
  if (c.disks.size() > kMost) return fmt::format("--disk: {} disks: give {} or fewer", c.disks.size(), kMost);
  return {};
}

// --vsock, --balloon, --virtio-transport.
std::string check_small_devices(const RunOptions& o, Config& c) {
  if (!o.vsock.empty()) {
    auto vsock = parse_vsock(o.vsock);
    if (!vsock) return vsock.error();
    if (c.clock == ClockChoice::instructions)
      return "--vsock: what comes from outside cannot be repeated: use --clock real";
    c.vsock = std::move(*vsock);
  }
  if (!o.balloon.empty()) {
    const auto bytes = o.balloon == "0" ? std::optional<u64>{0} : parse_size(o.balloon);
    if (!bytes) return fmt::format("--balloon {}: give a size like 256M, or 0", o.balloon);
    if (*bytes >= c.memory) return fmt::format("--balloon {}: give less than --memory", o.balloon);
    c.balloon = true;
    c.balloon_bytes = *bytes;
  }
  c.virtio_mmio = o.virtio_transport == "mmio";
  if (!c.virtio_mmio && o.virtio_transport != "pci")
    return fmt::format("--virtio-transport {}: give pci or mmio", o.virtio_transport);
  return {};
}

std::string check_networks(const RunOptions& o, Config& c) {
  for (const std::string& text : o.networks) {
    // The same VM has the same address in each run.
    const std::string& seed = !c.name.empty() ? c.name : o.network_seed.empty() ? c.kernel : o.network_seed;
    auto network = parse_net(text, fmt::format("{}\n{}", seed, c.networks.size()));
    if (!network) return network.error();
    if (*network) c.networks.push_back(std::move(**network));
  }
  if (!c.networks.empty() && c.clock == ClockChoice::instructions)
    return "--net: what comes from outside cannot be repeated: use --clock real";
  if (std::string wrong = check_small_devices(o, c); !wrong.empty()) return wrong;
  const std::size_t devices = c.networks.size() + c.disks.size() + c.rng + c.balloon + (c.vsock.cid != 0);
  const std::size_t slots = c.firmware.empty() && c.cdrom.empty() ? 31 : 28;
  if (devices > slots) return fmt::format("{} virtio devices: PCI has slots for {}", devices, slots);
  return {};
}

// DIR, and words after commas. A folder with a comma in its name is reached by another name.
std::string check_share(const std::string& text, Config& c) {
  machine::Share share{text.substr(0, text.find(',')), fmt::format("share{}", c.shares.size()), false};
  constexpr std::string_view kVhost = "vhost-user=";
  if (share.path.starts_with(kVhost)) {
    share.path.erase(0, kVhost.size());
    share.vhost_user = true;
  }
  if (share.path.empty())
    return fmt::format("--share {}: name a folder: --share DIR[,tag=TAG][,readonly], or vhost-user=SOCKET[,tag=TAG]",
                       text);
  for (std::size_t at = text.find(','); at != std::string::npos;) {
    const std::size_t next = text.find(',', at + 1);
    const std::string word = text.substr(at + 1, next == std::string::npos ? next : next - at - 1);
    at = next;
    if (share.vhost_user && !word.starts_with("tag="))
      return fmt::format("--share {}: {}: the back end decides that: give it to the back end", text, word);
    if (word == "readonly" || word == "ro")
      share.readonly = true;
    else if (word.starts_with("tag="))
      share.tag = word.substr(4);
    else
      return fmt::format("--share {}: {}: no such word: give tag=TAG or readonly", text, word);
  }
  if (share.tag.empty() || share.tag.size() > kLongestTag)
    return fmt::format("--share {}: tag={}: give 1 to {} bytes", text, share.tag, kLongestTag);
  for (const machine::Share& other : c.shares)
    if (other.tag == share.tag)
      return fmt::format("--share {}: tag={}: {} has it: give another", text, share.tag, other.path);
  c.shares.push_back(std::move(share));
  return {};
}

std::string check_rest(const RunOptions& o, Config& c) {
  for (const std::string& share : o.shares)
    if (std::string wrong = check_share(share, c); !wrong.empty()) return wrong;
  if (c.clock == ClockChoice::instructions && c.lends_ram())
    return "vhost-user: what another program does cannot be repeated: use --clock real";
  if (!c.name.empty() && !monitor::Registry::is_name(c.name))
    return fmt::format("--name {}: give letters, digits, dots, dashes and underscores, 64 at most", c.name);
  if (c.shares.size() > kMostShares) return fmt::format("--share: {}: give {} or fewer", c.shares.size(), kMostShares);
  if (c.timeout_seconds < 0 || !(c.timeout_seconds < 1e9))
    return fmt::format("--timeout {}: give seconds, 0 for none", c.timeout_seconds);
  if (std::string wrong = check_gdb(o.gdb, c); !wrong.empty()) return wrong;
  for (const auto& m : o.modules) {
    const auto equals = m.find('=');
    c.modules.push_back({m.substr(0, equals), equals == std::string::npos ? "" : m.substr(equals + 1)});
    if (c.modules.back().path.empty()) return fmt::format("--module {}: name a file: --module FILE[=ARGUMENTS]", m);
  }
  if (c.modules.size() > 64) return fmt::format("--module: {} modules: give 64 or fewer", c.modules.size());
  return {};
}

}  // namespace

namespace {

// Of K, KB, KiB and so on; B alone is 1, nothing is M.
std::optional<unsigned> shift_of(std::string_view unit) {
  if (unit.empty()) return 20;
  constexpr std::string_view kLetters = "BKMGT";
  const auto upper = [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; };
  const auto power = kLetters.find(upper(unit[0]));
  const std::string_view rest = unit.substr(1);
  const bool spelt = rest.empty() || (power > 0 && upper(rest.back()) == 'B' &&
                                      (rest.size() == 1 || (rest.size() == 2 && upper(rest[0]) == 'I')));
  if (power == std::string_view::npos || !spelt) return std::nullopt;
  return static_cast<unsigned>(power * 10);
}

}  // namespace

std::optional<u64> parse_size(const std::string& text) {
  u64 whole = 0, fraction = 0, scale = 1;
  const char* end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), end, whole);
  if (error != std::errc{}) return std::nullopt;
  const bool fractional = at != end && *at == '.';
  if (fractional)
    for (at++; at != end && *at >= '0' && *at <= '9'; at++)
      if (scale < 1'000'000'000) fraction = fraction * 10 + static_cast<u64>(*at - '0'), scale *= 10;
  if (fractional && scale == 1) return std::nullopt;
  const auto shift = shift_of({at, static_cast<std::size_t>(end - at)});
  if (!shift || whole > ~u64{0} >> *shift) return std::nullopt;
  const u64 rest = static_cast<u64>((static_cast<u128>(fraction) << *shift) / scale);
  return (whole << *shift) + (fractional ? rest & kPageMask : 0);
}

void add_run_options(CLI::App& run, RunOptions& o) {
  Config& c = o.config;
  run.add_option("--kernel,KERNEL", c.kernel,
                 "bzImage, vmlinux/PVH ELF, or multiboot 1/2 image; or the name of an image")
      ->type_name("FILE|NAME");
  run.add_option("--initrd", c.initrd, "initial RAM disk")->type_name("FILE");
  run.add_option("--module", o.modules, "multiboot module, repeatable")
      ->type_name("FILE[=ARGUMENTS]")
      ->expected(1)
      ->allow_extra_args(false)  // the word behind it may be the kernel
      ->take_all();
  run.add_option("--append", c.append, "kernel command line")->type_name("STRING");
  add_firmware_options(run, o);
  run.add_option(
         "--memory", o.memory,
         fmt::format("guest RAM, 64M to 256G: 512M, 1.5G, 2GiB; default: {}, for an image {}", kMemory, kImageMemory))
      ->type_name("SIZE");
  run.add_flag("!--no-huge-pages", c.huge_pages,
               "guest RAM in pages of 4 KiB: slower to touch, and given back to the host page by page");
  run.add_option("--cpus", c.cpus, "virtual CPUs")->type_name("N")->capture_default_str();
  run.add_option("--engine", o.engine, "interpret, translate, patch or auto")
      ->type_name("ENGINE")
      ->capture_default_str();
  run.add_option(
         "--patch-with", o.patch_with,
         "by what engine patch replaces sensitive instructions of kernel code: inline (what has their effect), or "
         "traps")
      ->type_name("HOW")
      ->capture_default_str();
  run.add_option("--para", o.para, "paravirtual interface: none, kvm, xen or auto")
      ->type_name("INTERFACE")
      ->capture_default_str();
  run.add_option("--cpu-features", c.cpu_features, "CPU features to add or take away, by their /proc/cpuinfo names")
      ->type_name("+X,-Y");
  run.add_option("--clock", o.clock, "real, or instructions: time counts retired instructions, runs are reproducible")
      ->type_name("CLOCK")
      ->capture_default_str();
  run.add_option("--timeout", c.timeout_seconds, "end the VM after this time, exit code 5; 0: never")
      ->type_name("SECONDS");
  run.add_option(
         "--disk", o.disks,
         "a disk (virtio-blk): a raw or qcow2 image or a block device; options: format=raw, readonly, snapshot, "
         "serial=NAME, discard; or vhost-user=SOCKET; can be given several times")
      ->type_name("FILE[,OPTION...]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  run.add_flag("--detach", o.detach, "do not stay: print the VM's name; `trapline console`, `logs` and `stop` find it");
  run.add_option("--cloud-init", o.cloud_init, "user data for cloud-init, on a disk that is only read (NoCloud)")
      ->type_name("FILE");
  run.add_flag("--snapshot", o.snapshot, "what the guest writes to the image that is run is thrown away");
  run.add_option(
         "--net", o.networks,
         "a network (virtio-net): user[,hostfwd=tcp:[ADDRESS]:PORT-[ADDRESS]:PORT][,restrict], passt, tap,ifname=NAME, "
         "socket,path=PATH, vhost-user,path=PATH or none; mac=ADDRESS, mtu=BYTES")
      ->type_name("KIND[,OPTION...]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  run.add_option("--name", c.name, "what `trapline ps` and `trapline stop` call this VM")->type_name("NAME");
  run.add_option("--share", o.shares,
                 "show a folder to the guest, by 9p over virtio, or what serves vhost-user=SOCKET; repeatable")
      ->type_name("DIR[,tag=TAG][,readonly]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  run.add_option(
         "--vsock", o.vsock,
         "sockets between guest and host (virtio-vsock) as connections of Unix sockets: the guest's number, and "
         "where to listen")
      ->type_name("cid=N,path=PATH");
  run.add_option(
         "--balloon", o.balloon,
         "a memory balloon: what the guest does not use goes back to the host; SIZE: it shall give away so much "
         "besides (0: nothing)")
      ->type_name("SIZE");
  run.add_option("--virtio-transport", o.virtio_transport, "where virtio devices are: pci, or mmio, as ACPI names them")
      ->type_name("TRANSPORT")
      ->capture_default_str();
  run.add_flag("--rng", c.rng, "an entropy device (virtio-rng), fed by the host's random numbers");
  run.add_flag("--no-reboot", c.no_reboot, "a reset by the guest ends the VM, exit code 6");
  run.add_option("--trace", o.trace, fmt::format("comma-separated areas: {}", trace::names()))->type_name("AREAS");
  run.add_option("--trace-file", c.trace_file, "where trace lines go; default: standard error")->type_name("FILE");
  run.add_option("--scan-report", c.scan_report,
                 "write the sensitive instructions that the guest executed, as `trapline scan --json` does")
      ->type_name("FILE");
  run.add_flag("--stats", c.stats, "print counters at the end");
  run.add_flag("--verify", c.verify, "compare translated code with the interpreter, block by block; exit code 10");
  run.add_option("--dump", o.dump, "print translated blocks where trace lines go: guest, host or guest,host")
      ->type_name("CODE");
  run.add_flag("--perf-map", c.perf_map, "write /tmp/perf-PID.map, by which perf names translated code");
  run.add_option("--system-map", c.system_map, "System.map of the guest kernel: names in crash reports")
      ->type_name("FILE");
  run.add_option("--gdb", o.gdb,
                 "serve the GDB remote protocol on this TCP port of localhost, or on a socket of this path")
      ->type_name("PORT|PATH");
  run.add_flag("--gdb-wait", c.gdb_wait, "do not start before a debugger says so");
}

Result<Config, std::string> check(const RunOptions& o) {
  Config c = o.config;
  std::string wrong = check_clock(o.clock, c);
  if (wrong.empty()) wrong = check_firmware(o, c);
  if (wrong.empty()) wrong = check_engine(o.engine, c);
  if (wrong.empty()) wrong = check_patch_with(o.patch_with, c);
  if (wrong.empty()) wrong = check_para(o.para, c);
  if (wrong.empty()) wrong = check_memory(o.memory, c);
  if (wrong.empty()) wrong = check_dump(o.dump, c);
  if (wrong.empty()) wrong = check_trace(o.trace, c);
  if (wrong.empty()) wrong = check_cpus(c);
  if (wrong.empty()) wrong = check_verify(c);
  if (wrong.empty()) wrong = check_disks(o, c);
  if (wrong.empty()) wrong = check_networks(o, c);
  if (wrong.empty()) wrong = check_rest(o, c);
  if (wrong.empty()) wrong = check_xen(c);
  if (!wrong.empty()) return Err{wrong};
  return c;
}

std::vector<ParaOffer> offered_paras() {
  std::vector<ParaOffer> offers;
  for (const auto& para : kParas)
    if (Config c; para.value != ParaChoice::automatic && check_para(para.name, c).empty())
      offers.push_back({para.name, para.value});
  return offers;
}

std::vector<std::string> notes(const RunOptions& o, const Config& c) {
  std::vector<std::string> all;
  const auto idle = [&](const char* option) {
    all.push_back(fmt::format("{}: engine {} translates nothing: no effect", option, c.engine));
  };
  if (!engine::find_engine(c.engine)->verifiable) {
    if (!o.dump.empty()) idle("--dump");
    if (c.perf_map) idle("--perf-map");
  }
  return all;
}

}  // namespace trapline::cli
