#include <cpuid.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "cpu/xsave.h"

namespace trapline::cpu::xsave {

namespace {

struct Extent {
  u32 size = 0, offset = 0;
  bool align64 = false;
};

// Architectural sizes: what the registers hold. Hosts that report others do not exist, and would be misread.
constexpr u32 kSizes[] = {0, 0, 256, 0, 0, 64, 512, 1024};
constexpr u32 kUsualOffsets[] = {0, 0, 576, 0, 0, 1088, 1152, 1664};

struct Layout {
  Extent place[8];
  Layout() {
    for (const Component c : kExtended) {
      u32 size = 0, offset = 0, flags = 0, unused = 0;
      const bool known = __get_cpuid_count(0xd, c, &size, &offset, &flags, &unused) && size == kSizes[c];
      place[c] = {kSizes[c], known ? offset : kUsualOffsets[c], known && (flags & 2) != 0};
    }
  }
};

const Extent& place_of(Component c) {
  static const Layout layout;
  return layout.place[c];
}

// Calls `fn` with the part of a vector register that a component holds: its first register, its first byte there and,
// as a constant, its bytes.
template <class Fn>
void with_slice(Component c, Fn fn) {
  switch (c) {
    case avx:
      return fn(0, 16, std::integral_constant<unsigned, 16>{});
    case zmm_hi256:
      return fn(0, 32, std::integral_constant<unsigned, 32>{});
    default:
      return fn(16, 0, std::integral_constant<unsigned, 64>{});
  }
}

}  // namespace

unsigned size_of(Component c) { return place_of(c).size; }
unsigned standard_offset(Component c) { return place_of(c).offset; }

// SDM Vol. 1 13.4.3.
unsigned compacted_offset(Component c, u64 xcomp_bv) {
  unsigned at = kFirstExtended;
  for (const Component i : kExtended) {
    if (!(xcomp_bv & bit(i))) continue;
    if (place_of(i).align64) at = (at + 63) & ~63u;
    if (i == c) break;
    at += place_of(i).size;
  }
  return at;
}

unsigned area_bytes(u64 components, bool compacted) {
  unsigned end = kFirstExtended;
  for (const Component c : kExtended)
    if (components & bit(c))
      end = std::max(end, (compacted ? compacted_offset(c, components) : standard_offset(c)) + size_of(c));
  return end;
}

unsigned present_bytes(const Vcpu& cpu, Component c) {
  if (c == opmask || cpu.in_long64()) return size_of(c);
  return c == hi16_zmm ? 0 : size_of(c) / 2;
}

void gather(const Vcpu& cpu, Component c, u8* out) {
  if (c == opmask) {
    std::memcpy(out, cpu.vec.k, 64);
    return;
  }
  with_slice(c, [&](unsigned first, unsigned from, auto bytes) {
    for (unsigned i = 0, n = present_bytes(cpu, c) / bytes; i < n; i++)
      std::memcpy(out + i * bytes, cpu.vec.zmm[first + i] + from, bytes);
  });
}

bool differs(const Vcpu& cpu, Component c) {
  u64 all = 0;  // without a way out: it is vector code then
  const auto add = [&](const u8* from, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i += sizeof all) {
      u64 word;
      std::memcpy(&word, from + i, sizeof word);
      all |= word;
    }
  };
  if (c == opmask)
    add(reinterpret_cast<const u8*>(cpu.vec.k), 64);
  else
    with_slice(c, [&](unsigned first, unsigned from, auto bytes) {
      for (unsigned i = 0, n = present_bytes(cpu, c) / bytes; i < n; i++) add(cpu.vec.zmm[first + i] + from, bytes);
    });
  return all != 0;
}

void scatter(Vcpu& cpu, Component c, const u8* in) {
  if (c == opmask) {
    in ? std::memcpy(cpu.vec.k, in, 64) : std::memset(cpu.vec.k, 0, 64);
    return;
  }
  with_slice(c, [&](unsigned first, unsigned from, auto bytes) {
    for (unsigned i = 0, n = present_bytes(cpu, c) / bytes; i < n; i++) {
      u8* to = cpu.vec.zmm[first + i] + from;
      in ? std::memcpy(to, in + i * bytes, bytes) : std::memset(to, 0, bytes);
    }
  });
}

}  // namespace trapline::cpu::xsave
