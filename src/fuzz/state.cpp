#include "fuzz/state.h"

#include <fmt/format.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstring>

#include "cpu/fault.h"
#include "cpu/vcpu.h"

namespace trapline::fuzz {

namespace {

constexpr const char* kGpr[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                  "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

// What hosts disagree on, or hide. Small, and every entry has its reason here.
struct Masks {
  // RFLAGS: all that user code can see or change. RF is part of what a fault pushes, and compared.
  // NT may be lost on the host's side: what an interrupt in the middle enters (a hypervisor below, for one) clears it
  // and need not set it again.
  static u64 rflags(const Registers& native) {
    return cpu::flag::arith | cpu::flag::tf | cpu::flag::if_ | cpu::flag::df | (native.rflags & cpu::flag::nt) |
           cpu::flag::rf | cpu::flag::ac | cpu::flag::id;
  }
  // Linux reports faults on kernel addresses as protection violations so as not to tell what it maps
  // (arch/x86/mm/fault.c, sanitize_error_code): bit 0 of the error code is made up there.
  static u32 error(const Ending& e) {
    return e.vector == 14 && e.address >= (u64{1} << 47) - kPageSize ? e.error & ~1u : e.error;
  }
};

bool has_error(u8 vector) { return cpu::has_error_code(static_cast<cpu::Vector>(vector)); }

bool is_alignment(const Ending& e) { return e.vector == 17 || (e.vector == 13 && e.error == 0); }

bool same_ending(const Ending& a, const Ending& b, const Lenient& lenient = {}) {
  if (a.kind != b.kind) return false;
  if (lenient.alignment_vector && is_alignment(a) && is_alignment(b)) return true;
  if (a.vector != b.vector) return false;
  if (has_error(a.vector) && Masks::error(a) != Masks::error(b)) return false;
  const u64 mask = lenient.page_address ? kPageMask : ~u64{0};
  return a.vector != 14 || ((a.address ^ b.address) & mask) == 0;
}

// Bytes of one vector register that exist.
unsigned vector_bytes(const Extent& e) { return e.avx512 ? 64 : e.avx ? 32 : 16; }
unsigned vector_count(const Extent& e) { return e.avx512 ? 32 : 16; }

// x87 fields by name. AMD's CPUs save FOP, FIP and FDP only with an exception pending (APM Vol. 2 11.4.4): elsewhere
// the host's are not to be had.
struct X87Field {
  const char* name;
  unsigned offset, bytes;
  bool pointer;
};
constexpr X87Field kX87[] = {{"fcw", 0, 2, false}, {"fsw", 2, 2, false}, {"ftw", 4, 1, false},
                             {"fop", 6, 2, true},  {"fip", 8, 8, true},  {"fdp", 16, 8, true}};

bool shown(const X87Field& f, const Registers& native, const Extent& extent) {
  constexpr u8 kErrorSummary = 0x80;
  return !f.pointer || extent.intel || (native.x87[2] & kErrorSummary);
}

std::string hex(const u8* bytes, unsigned n) {  // as one number, high byte first
  std::string s;
  for (unsigned i = n; i-- > 0;) s += fmt::format("{:02x}{}", bytes[i], i && i % 8 == 0 ? "_" : "");
  return s;
}

class Lister {
 public:
  void number(const std::string& name, u64 native, u64 engine) {
    if (native != engine)
      lines.push_back(
          fmt::format("{:<6} host {:#018x}   engine {:#018x}   xor {:#x}", name, native, engine, native ^ engine));
  }
  void bytes(const std::string& name, const u8* native, const u8* engine, unsigned n) {
    if (std::memcmp(native, engine, n) == 0) return;
    lines.push_back(fmt::format("{:<6} host   {}", name, hex(native, n)));
    lines.push_back(fmt::format("{:<6} engine {}", "", hex(engine, n)));
  }
  void memory(const char* name, u64 base, const u8* native, const u8* engine, u64 n) {
    unsigned named = 0;
    for (u64 i = 0; i < n && named < 8; i += 8) {
      if (std::memcmp(native + i, engine + i, 8) == 0) continue;
      lines.push_back(
          fmt::format("{} {:#x}: host {}   engine {}", name, base + i, hex(native + i, 8), hex(engine + i, 8)));
      named++;
    }
  }
  std::vector<std::string> lines;
};

void list_registers(Lister& out, const Registers& n, const Registers& e, const Extent& extent, const Lenient& lenient) {
  for (unsigned i = 0; i < 16; i++) out.number(kGpr[i], n.gpr[i], e.gpr[i]);
  out.number("rip", n.rip, e.rip);
  const u64 rflags = Masks::rflags(n) & ~(lenient.arithmetic_flags ? cpu::flag::arith : 0);
  out.number("rflags", n.rflags & rflags, e.rflags & rflags);
  for (unsigned i = 0; i < vector_count(extent); i++)
    out.bytes(fmt::format("zmm{}", i), n.zmm[i], e.zmm[i], vector_bytes(extent));
  if (extent.avx512)
    for (unsigned i = 0; i < 8; i++) out.number(fmt::format("k{}", i), n.k[i], e.k[i]);
  const u32 mxcsr = lenient.mxcsr_flags ? ~0x3fu : ~0u;
  out.number("mxcsr", n.mxcsr & mxcsr, e.mxcsr & mxcsr);
  if (lenient.x87) return;
  for (const X87Field& f : kX87)
    if (shown(f, n, extent)) out.bytes(f.name, n.x87 + f.offset, e.x87 + f.offset, f.bytes);
  for (unsigned i = 0; i < 8; i++) out.bytes(fmt::format("st{}", i), n.x87 + 32 + 16 * i, e.x87 + 32 + 16 * i, 10);
}

}  // namespace

const char* name_of_gpr(unsigned number) { return kGpr[number]; }

Extent Extent::of_host() {
  Extent e;
  __builtin_cpu_init();
  e.avx = __builtin_cpu_supports("avx");
  e.avx512 = __builtin_cpu_supports("avx512f");
  e.intel = isa::host_vendor() == isa::Vendor::intel;
  e.mxcsr_mask = cpu::HostCpu::real().mxcsr_mask;
  return e;
}

std::vector<std::string> differences(const Outcome& native, const Outcome& engine, const Extent& extent,
                                     const Lenient& lenient) {
  Lister out;
  if (!same_ending(native.ending, engine.ending, lenient))
    out.lines.push_back(fmt::format("ended  host {}   engine {}", name_of(native.ending), name_of(engine.ending)));
  list_registers(out, native.state.regs, engine.state.regs, extent, lenient);
  if (lenient.memory) return out.lines;
  const Memory &n = native.state.memory, &e = engine.state.memory;
  out.memory("data", place::data, n.data, e.data, place::data_size);
  out.memory("stack", place::stack, n.stack, e.stack, place::stack_size);
  return out.lines;
}

bool equal(const Outcome& native, const Outcome& engine, const Extent& extent) {
  const Registers &n = native.state.regs, &e = engine.state.regs;
  if (!same_ending(native.ending, engine.ending)) return false;
  if (std::memcmp(n.gpr, e.gpr, sizeof n.gpr) != 0 || n.rip != e.rip || ((n.rflags ^ e.rflags) & Masks::rflags(n)) ||
      n.mxcsr != e.mxcsr)
    return false;
  if (extent.avx512) {
    if (std::memcmp(n.zmm, e.zmm, sizeof n.zmm) != 0 || std::memcmp(n.k, e.k, sizeof n.k) != 0) return false;
  } else {
    for (unsigned i = 0; i < 16; i++)
      if (std::memcmp(n.zmm[i], e.zmm[i], vector_bytes(extent)) != 0) return false;
  }
  for (const X87Field& f : kX87)
    if (shown(f, n, extent) && std::memcmp(n.x87 + f.offset, e.x87 + f.offset, f.bytes) != 0) return false;
  for (unsigned i = 0; i < 8; i++)
    if (std::memcmp(n.x87 + 32 + 16 * i, e.x87 + 32 + 16 * i, 10) != 0) return false;
  return std::memcmp(&native.state.memory, &engine.state.memory, sizeof(Memory)) == 0;
}

std::string name_of(const Ending& e) {
  static constexpr const char* kNames[] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9",
                                           "#TS", "#NP", "#SS", "#GP", "#PF", "15",  "#MF", "#AC", "#MC", "#XM"};
  if (e.kind == Ending::Kind::timeout) return "time-out";
  if (e.kind == Ending::Kind::lost) return "process died";
  std::string s = e.vector < std::size(kNames) ? kNames[e.vector] : std::to_string(e.vector);
  if (has_error(e.vector)) s += fmt::format("({:#x})", e.error);
  if (e.vector == 14) s += fmt::format(" at {:#x}", e.address);
  return s;
}

}  // namespace trapline::fuzz
