#include "channel/launch.h"

#include <cstring>
#include <type_traits>

namespace trapline::channel {

namespace {

// One description of the fields serves both directions.
struct Writer {
  std::vector<u8> out;
  template <class T>
  void value(T& v) {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto* p = reinterpret_cast<const u8*>(&v);
    out.insert(out.end(), p, p + sizeof v);
  }
  void text(std::string& s) {
    u32 n = static_cast<u32>(s.size());
    value(n);
    out.insert(out.end(), s.begin(), s.end());
  }
  template <class T>
  void count(std::vector<T>& v) {
    u32 n = static_cast<u32>(v.size());
    value(n);
  }
};

struct Reader {
  std::span<const u8> in;
  bool ok = true;
  template <class T>
  void value(T& v) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (in.size() < sizeof v) {
      ok = false;
      return;
    }
    std::memcpy(&v, in.data(), sizeof v);
    in = in.subspan(sizeof v);
  }
  void value(bool& v) {
    u8 byte = 0;
    value(byte);
    if (byte > 1) ok = false;
    v = byte == 1;
  }
  void text(std::string& s) {
    u32 n = 0;
    value(n);
    if (!ok || n > in.size()) {
      ok = false;
      return;
    }
    s.assign(reinterpret_cast<const char*>(in.data()), n);
    in = in.subspan(n);
  }
  template <class T>
  void count(std::vector<T>& v) {
    u32 n = 0;
    value(n);
    if (n > 4096) ok = false;
    if (ok) v.resize(n);
  }
};

template <class Stream>
void fields(Stream& s, Launch& l) {
  s.value(l.ram_fd), s.value(l.kernel_fd), s.value(l.initrd_fd), s.value(l.trace_fd), s.value(l.scan_fd);
  s.value(l.names_fd), s.value(l.devices_fd), s.value(l.code_fd), s.value(l.miscompile_at), s.value(l.miscompile_how);
  s.value(l.cpu_seconds), s.value(l.counts_fd), s.value(l.code_memory_fd), s.value(l.patch_traps);
  s.text(l.kernel_name), s.text(l.command_line), s.text(l.cpu_features), s.text(l.engine), s.text(l.engine_debug);
  s.count(l.modules);
  for (auto& m : l.modules) s.value(m.fd), s.text(m.name), s.text(m.arguments);
  s.value(l.memory), s.value(l.rom), s.value(l.text_screen), s.value(l.para_xen), s.value(l.cpus),
      s.value(l.virtio_mmio), s.value(l.xen_disks), s.value(l.xen_networks), s.value(l.trace_mask),
      s.value(l.hot_threshold);
  u8 flags = static_cast<u8>(l.para_kvm | l.instructions_clock << 1 | l.debugger << 2 | l.count_instructions << 3 |
                             l.verify << 4 | l.dump_guest << 5 | l.dump_host << 6 | l.split_locks_trap << 7);
  s.value(flags);
  l.para_kvm = flags & 1, l.instructions_clock = flags & 2, l.debugger = flags & 4;
  l.count_instructions = flags & 8, l.verify = flags & 16, l.dump_guest = flags & 32, l.dump_host = flags & 64;
  l.split_locks_trap = flags & 128;
}

}  // namespace

std::vector<u8> pack(const Launch& launch) {
  Launch copy = launch;
  Writer w;
  fields(w, copy);
  return std::move(w.out);
}

std::optional<Launch> unpack(std::span<const u8> bytes) {
  Launch l;
  Reader r{bytes};
  fields(r, l);
  if (!r.ok || !r.in.empty()) return std::nullopt;
  return l;
}

}  // namespace trapline::channel
