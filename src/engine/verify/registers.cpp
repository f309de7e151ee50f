#include "engine/verify/registers.h"

#include <fmt/format.h>

#include <cstring>
#include <iterator>
#include <type_traits>

#include "engine/verify/bytes.h"

namespace trapline::engine::verify {

namespace {

constexpr const char* kGpr[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                  "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr const char* kSegment[8] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};
constexpr struct {
  const char* name;
  u64 cpu::ArchState::*member;
} kControl[] = {{"cr0", &cpu::ArchState::cr0}, {"cr2", &cpu::ArchState::cr2},   {"cr3", &cpu::ArchState::cr3},
                {"cr4", &cpu::ArchState::cr4}, {"efer", &cpu::ArchState::efer}, {"xcr0", &cpu::ArchState::xcr0}};
constexpr u32 kX87Header = 5;  // FCW, FSW, abridged FTW; the pointers are beside the image

template <class T>
bool same(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

bool same_segment(const cpu::Segment& a, const cpu::Segment& b) {
  return a.selector == b.selector && a.attr == b.attr && a.limit == b.limit && a.base == b.base &&
         a.linear_base == b.linear_base && a.usable == b.usable;
}

const cpu::Segment& segment(const cpu::ArchState& s, unsigned i) { return i < 6 ? s.seg[i] : i == 6 ? s.ldtr : s.tr; }

const u8* x87_register(const cpu::X87State& x, unsigned i) { return x.image + 32 + 16 * i; }

bool same_x87(const cpu::X87State& a, const cpu::X87State& b) {
  if (std::memcmp(a.image, b.image, kX87Header) != 0) return false;
  for (unsigned i = 0; i < 8; i++)
    if (std::memcmp(x87_register(a, i), x87_register(b, i), 10) != 0) return false;
  return a.fip == b.fip && a.fdp == b.fdp && a.fop == b.fop && a.fcs == b.fcs && a.fds == b.fds;
}

// The shadow of an STI: a translated block that ends with one has dropped it already, which the manual allows nobody to
// see but by an interrupt that comes one instruction early (docs/translator.md, Limits).
bool same_shadow(bool reference, bool translated) { return reference || !translated; }

// RF is dropped late, and by instructions executed alone only: while no breakpoint is armed nobody reads it.
u32 flags(const Registers& r) { return r.rflags() & ~cpu::flag::rf; }

std::string hex(const u8* bytes, unsigned n) {
  std::string text;
  for (unsigned i = n; i-- > 0;) fmt::format_to(std::back_inserter(text), "{:02x}", bytes[i]);
  return text;
}

// The bytes in use of a vector register: 16, 32 or 64.
unsigned width(const u8* a, const u8* b) {
  for (unsigned n : {64u, 32u})
    for (unsigned i = n / 2; i < n; i++)
      if (a[i] || b[i]) return n;
  return 16;
}

std::string text_of(const cpu::Segment& s) {
  return fmt::format("{:04x} base {:x} limit {:x} attributes {:x}{}", s.selector, s.base, s.limit, s.attr,
                     s.usable ? "" : " unusable");
}

class List {
 public:
  List(const Registers& before, const Registers& reference, const Registers& translated)
      : b_{before}, r_{reference}, t_{translated} {}

  // `get`: Registers -> something to print.
  template <class Get>
  void add(const std::string& name, Get get) {
    const std::string reference = get(r_), translated = get(t_);
    if (reference != translated) out.push_back({name, get(b_), reference, translated});
  }
  template <class Get>
  void number(const std::string& name, Get get) {
    add(name, [&](const Registers& r) { return fmt::format("{:x}", static_cast<u64>(get(r))); });
  }

  std::vector<Difference> out;

 private:
  const Registers &b_, &r_, &t_;
};

}  // namespace

// The state is copied by its bytes: what follows it in the derived structures does not begin in its padding.
void Registers::capture(const cpu::Vcpu& c) {
  copy(static_cast<cpu::ArchState*>(this), static_cast<const cpu::ArchState*>(&c), sizeof(cpu::ArchState));
  linear_mask = c.linear_mask, timer_deadline = c.timer_deadline, mode = c.mode;
  need_read = c.need_read, need_write = c.need_write, need_fetch = c.need_fetch;
  debug_hits = c.debug_hits, fault = c.fault;
  last_pause = c.last_pause, pauses = c.pauses;
  copy(&count, &c.count, sizeof count);
}

void Registers::restore(cpu::Vcpu& c) const {
  copy(static_cast<cpu::ArchState*>(&c), static_cast<const cpu::ArchState*>(this), sizeof(cpu::ArchState));
  c.linear_mask = linear_mask, c.timer_deadline = timer_deadline, c.mode = mode;
  c.need_read = need_read, c.need_write = need_write, c.need_fetch = need_fetch;
  c.debug_hits = debug_hits, c.fault = fault;
  c.last_pause = last_pause, c.pauses = pauses;
  copy(&c.count, &count, sizeof count);
}

bool equal(const cpu::Vcpu& c, const Registers& t) {
  if (std::memcmp(c.gpr, t.gpr, sizeof t.gpr) != 0 || c.rip != t.rip || c.retired != t.retired) return false;
  if (c.arith != t.arith || (c.sys_flags ^ t.sys_flags) & ~cpu::flag::rf) return false;
  if (c.cpl != t.cpl || c.mode != t.mode || c.activity != t.activity || c.linear_mask != t.linear_mask ||
      c.need_read != t.need_read || c.need_write != t.need_write || c.need_fetch != t.need_fetch)
    return false;
  if (!same_shadow(c.interrupt_shadow, t.interrupt_shadow) || c.nmi_blocked != t.nmi_blocked) return false;
  for (unsigned i = 0; i < 8; i++)
    if (!same_segment(segment(c, i), segment(t, i))) return false;
  for (const auto& control : kControl)
    if (c.*control.member != t.*control.member) return false;
  return c.gdtr == t.gdtr && c.idtr == t.idtr && same(c.pdpte, t.pdpte) && same(c.debug, t.debug) &&
         same(c.msr, t.msr) && same(c.vec.zmm, t.vec.zmm) && same(c.vec.k, t.vec.k) && c.vec.mxcsr == t.vec.mxcsr &&
         same_x87(c.x87, t.x87);
}

std::vector<Difference> differences(const Registers& before, const Registers& reference, const Registers& translated) {
  List list{before, reference, translated};
  list.number("rip", [](const Registers& r) { return r.rip; });
  list.number("rflags", flags);
  for (unsigned i = 0; i < 16; i++) list.number(kGpr[i], [&](const Registers& r) { return r.gpr[i]; });
  list.number("instructions retired", [](const Registers& r) { return r.retired; });
  for (unsigned i = 0; i < 8; i++) list.add(kSegment[i], [&](const Registers& r) { return text_of(segment(r, i)); });
  list.number("gdtr base", [](const Registers& r) { return r.gdtr.base; });
  list.number("gdtr limit", [](const Registers& r) { return r.gdtr.limit; });
  list.number("idtr base", [](const Registers& r) { return r.idtr.base; });
  list.number("idtr limit", [](const Registers& r) { return r.idtr.limit; });
  for (const auto& control : kControl) list.number(control.name, [&](const Registers& r) { return r.*control.member; });
  for (unsigned i = 0; i < 4; i++)
    list.number(fmt::format("dr{}", i), [&](const Registers& r) { return r.debug.dr[i]; });
  list.number("dr6", [](const Registers& r) { return r.debug.dr6; });
  list.number("dr7", [](const Registers& r) { return r.debug.dr7; });
  for (unsigned i = 0; i < 32; i++) {
    const unsigned n = width(reference.vec.zmm[i], translated.vec.zmm[i]);
    const char* file = n == 64 ? "zmm" : n == 32 ? "ymm" : "xmm";
    list.add(fmt::format("{}{}", file, i), [&](const Registers& r) { return hex(r.vec.zmm[i], n); });
  }
  for (unsigned i = 0; i < 8; i++) list.number(fmt::format("k{}", i), [&](const Registers& r) { return r.vec.k[i]; });
  list.number("mxcsr", [](const Registers& r) { return r.vec.mxcsr; });
  list.add("x87 control, status, tags", [](const Registers& r) { return hex(r.x87.image, kX87Header); });
  for (unsigned i = 0; i < 8; i++)
    list.add(fmt::format("st({})", i), [&](const Registers& r) { return hex(x87_register(r.x87, i), 10); });
  list.number("fip", [](const Registers& r) { return r.x87.fip; });
  list.number("fdp", [](const Registers& r) { return r.x87.fdp; });
  list.number("fop", [](const Registers& r) { return r.x87.fop; });
  list.number("fcs", [](const Registers& r) { return r.x87.fcs; });
  list.number("fds", [](const Registers& r) { return r.x87.fds; });
  list.number("ring", [](const Registers& r) { return r.cpl; });
  list.number("mode", [](const Registers& r) { return static_cast<u64>(r.mode); });
  list.number("linear address mask", [](const Registers& r) { return r.linear_mask; });
  list.add("access rights needed",
           [](const Registers& r) { return fmt::format("{:x} {:x} {:x}", r.need_read, r.need_write, r.need_fetch); });
  list.number("activity", [](const Registers& r) { return static_cast<u64>(r.activity); });
  list.number("NMIs blocked", [](const Registers& r) { return r.nmi_blocked; });
  if (!same_shadow(reference.interrupt_shadow, translated.interrupt_shadow))
    list.number("interrupt shadow", [](const Registers& r) { return r.interrupt_shadow; });
  const auto* before_msr = reinterpret_cast<const u64*>(&reference.msr);
  for (std::size_t i = 0; i < sizeof(cpu::Msrs) / 8; i++)
    if (before_msr[i] != reinterpret_cast<const u64*>(&translated.msr)[i])
      list.number(fmt::format("MSR state, word {}", i),
                  [&](const Registers& r) { return reinterpret_cast<const u64*>(&r.msr)[i]; });
  return std::move(list.out);
}

std::string describe(const Registers& r) {
  std::string text;
  const auto out = std::back_inserter(text);
  for (unsigned i = 0; i < 16; i++) fmt::format_to(out, "  {:3} {:016x}{}", kGpr[i], r.gpr[i], i % 4 == 3 ? "\n" : "");
  fmt::format_to(out, "  rip {:016x}  rflags {:x}  ring {}  instructions retired {}\n", r.rip, r.rflags(), r.cpl,
                 r.retired);
  for (const auto& control : kControl) fmt::format_to(out, "  {} {:x}", control.name, r.*control.member);
  text += "\n";
  for (unsigned i = 0; i < 8; i++) fmt::format_to(out, "  {:4} {}\n", kSegment[i], text_of(segment(r, i)));
  static constexpr u8 kZero[64] = {};
  unsigned column = 0;
  for (unsigned i = 0; i < 32; i++) {
    const unsigned n = width(r.vec.zmm[i], r.vec.zmm[i]);
    if (std::memcmp(r.vec.zmm[i], kZero, 64) != 0)
      fmt::format_to(out, "  {}{:<2} {}{}",
                     n == 64   ? "zmm"
                     : n == 32 ? "ymm"
                               : "xmm",
                     i, hex(r.vec.zmm[i], n), n > 16 || ++column % 2 == 0 ? "\n" : "");
  }
  if (column % 2) text += "\n";
  for (unsigned i = 0; i < 8; i++)
    if (r.vec.k[i]) fmt::format_to(out, "  k{} {:x}", i, r.vec.k[i]);
  fmt::format_to(out, "  mxcsr {:x}  fcw {}  fsw {}  tags {:x}  fip {:x}  fdp {:x}  fop {:x}\n", r.vec.mxcsr,
                 hex(r.x87.image, 2), hex(r.x87.image + 2, 2), r.x87.image[4], r.x87.fip, r.x87.fdp, r.x87.fop);
  column = 0;
  for (unsigned i = 0; i < 8; i++)
    if (std::memcmp(x87_register(r.x87, i), kZero, 10) != 0)
      fmt::format_to(out, "  st({}) {}{}", i, hex(x87_register(r.x87, i), 10), ++column % 4 == 0 ? "\n" : "");
  if (column % 4) text += "\n";
  return text;
}

}  // namespace trapline::engine::verify
