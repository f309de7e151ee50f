#include "core/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "cpu/mmu.h"

namespace trapline::core {

namespace {

using cpu::Trail;

constexpr std::size_t kLongest = 15;  // bytes of an instruction

// Oldest first. Older entries than the trail keeps for sure are left out: their neighbours may be missing.
std::vector<Trail::Entry> entries_of(const cpu::Vcpu& cpu) {
  std::vector<Trail::Entry> out;
  for (const Trail::Entry& e : cpu.trail.entries)
    if (e.retired <= cpu.retired && cpu.retired - e.retired < Trail::kEntries) out.push_back(e);
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.retired < b.retired; });
  return out;
}

Trail::Regime regime_at(const Trail& trail, u64 retired) {
  for (u32 back = 0; back < Trail::kRegimes && back < trail.newest; back++) {
    const Trail::Regime& r = trail.regimes[(trail.newest - back) % Trail::kRegimes];
    if (r.retired <= retired) return r;
  }
  return {};
}

void append_block(const cpu::Vcpu& cpu, const Trail::Entry& entry, u64 count, std::vector<Executed>& out) {
  const Trail::Regime regime = regime_at(cpu.trail, entry.retired);
  u64 rip = entry.rip;
  for (u64 i = 0; i < count; i++) {
    const Gva linear{(regime.base + rip) & (regime.size == isa::CodeSize::bits64 ? ~u64{0} : 0xffffffff)};
    const auto bytes = code_bytes(cpu, linear, kLongest);
    isa::Insn insn;
    if (isa::decode(bytes.data(), bytes.size(), regime.size, isa::host_vendor(), insn) != isa::DecodeStatus::ok) {
      out.push_back(
          {linear, fmt::format("({} instruction{}: this is no code now)", count - i, count - i > 1 ? "s" : "")});
      return;
    }
    std::array<char, 128> text{};
    isa::format(insn, rip, text.data(), text.size());
    out.push_back({linear, text.data()});
    rip += insn.length;
  }
}

}  // namespace

std::vector<u8> code_bytes(const cpu::Vcpu& cpu, Gva linear, std::size_t wanted) {
  std::vector<u8> bytes;
  const auto next = [&] { return Gva{linear.wrapping_add(bytes.size()).raw & cpu.linear_mask}; };
  for (u8 b; bytes.size() < wanted && cpu::peek(cpu, next(), &b, 1);) bytes.push_back(b);
  return bytes;
}

std::vector<Executed> executed_last(const cpu::Vcpu& cpu, std::size_t most) {
  std::vector<Executed> out;
  const auto entries = entries_of(cpu);
  for (std::size_t i = 0; i < entries.size(); i++) {
    const u64 end = i + 1 < entries.size() ? entries[i + 1].retired : cpu.retired;
    append_block(cpu, entries[i], end - entries[i].retired, out);
  }
  if (out.size() > most) out.erase(out.begin(), out.end() - static_cast<std::ptrdiff_t>(most));
  return out;
}

}  // namespace trapline::core
