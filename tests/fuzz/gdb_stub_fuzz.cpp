// Whatever comes over the debugger's socket, on a VM that is paused, runs, or is gone.
#include <algorithm>
#include <cstring>

#include "base/invariant.h"
#include "monitor/gdb_stub.h"

using namespace trapline;
using namespace trapline::monitor::gdb;

namespace {

struct Vm final : Target {
  channel::DebugRegisters registers[2];
  u8 memory[256] = {};
  std::size_t stops = 0;

  u32 vcpus() const override { return 2; }
  bool read_registers(u32 vcpu, channel::DebugRegisters& out) override {
    INVARIANT(vcpu < 2, "vcpu {}", vcpu);
    out = registers[vcpu];
    return true;
  }
  bool write_registers(u32 vcpu, const channel::DebugRegisters& in) override {
    INVARIANT(vcpu < 2, "vcpu {}", vcpu);
    registers[vcpu] = in;
    return true;
  }
  std::size_t read_memory(u32, Gva address, std::span<u8> out) override {
    const std::size_t n =
        address.raw < sizeof memory ? std::min<std::size_t>(out.size(), sizeof memory - address.raw) : 0;
    std::copy_n(memory + (n ? address.raw : 0), n, out.begin());
    return n;
  }
  std::size_t write_memory(u32, Gva address, std::span<const u8> in) override {
    const std::size_t n =
        address.raw < sizeof memory ? std::min<std::size_t>(in.size(), sizeof memory - address.raw) : 0;
    std::copy_n(in.begin(), n, memory + (n ? address.raw : 0));
    return n;
  }
  std::optional<Gpa> translate(u32, Gva address) override {
    return address.raw & 1 ? std::nullopt : std::optional{Gpa{address.raw}};
  }
  void set_stops(const std::vector<channel::DebugStop>& all) override {
    stops = all.size();
    INVARIANT(stops <= channel::DebugMailbox::kStops, "{} stops", stops);
  }
  void resume(u64, u64, bool) override {}
  void interrupt() override {}
  void end() override {}
};

}  // namespace

// The first byte says which machine the stub describes, then pieces: a length, so many bytes, and between them a stop.
extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size < 2) return 0;
  Vm vm;
  for (auto& r : vm.registers) r.efer = data[0] & 1 ? 0x500 : 0, r.mode = data[0] >> 1 & 3;
  Settings settings;
  std::size_t sent = 0;
  Stub stub{vm, settings, Stop{}, [&](std::string_view bytes) { sent += bytes.size(); }};
  data++, size--;
  while (size > 1 && !stub.closed()) {
    const std::size_t n = std::min<std::size_t>(data[0] ? data[0] : 4096, size - 1);
    stub.receive({data + 1, n});
    if (stub.running())
      stub.stopped({static_cast<u32>(data[0] & 1), static_cast<channel::DebugReport>(data[0] >> 1 & 3),
                    static_cast<channel::StopKind>(data[0] >> 3 & 3), Gva{data[0]}});
    data += n + 1, size -= n + 1;
  }
  stub.ended(data[-1], 0);
  return 0;
}
