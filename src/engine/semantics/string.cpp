// MOVS, STOS, LODS, CMPS, SCAS with REP, every address size, segment and direction. MOVS and STOS go page by page in
// bulk. A REP is interruptible between elements: then the registers say what is left and Outcome::repeat runs
// it again.
#include <algorithm>
#include <cstring>

#include "cpu/code_map.h"
#include "cpu/debug_port.h"
#include "engine/semantics/complex.h"

namespace trapline::engine::semantics {

namespace {

// RSI, RDI and RCX as the address size sees them.
class Cursor {
 public:
  Cursor(Vcpu& cpu, const Insn& insn)
      : cpu_{cpu},
        bytes_{insn.address_bytes},
        mask_{bytes_ == 8   ? ~u64{0}
              : bytes_ == 4 ? 0xffffffff
                            : 0xffff} {}
  u64 value(unsigned reg) const { return cpu_.gpr[reg] & mask_; }
  void advance(unsigned reg, u64 by) {
    u64& r = cpu_.gpr[reg];
    r = bytes_ == 2 ? (r & ~mask_) | ((r + by) & mask_) : (r + by) & mask_;
  }
  // Elements of `size` that fit from the register's offset, up or down, before the address wraps.
  u64 before_wrap(unsigned reg, unsigned size, bool back = false) const {
    if (bytes_ == 8) return ~u64{0};
    const u64 up = (mask_ - value(reg) + 1) / size;
    return back && up ? value(reg) / size + 1 : up;
  }

 private:
  Vcpu& cpu_;
  unsigned bytes_;
  u64 mask_;
};

Gva below(Gva linear, u64 bytes) { return linear.wrapping_add(0 - bytes); }

// Elements from `linear` on, up or down, that lie in its page.
u64 in_page(Gva linear, unsigned size, bool back = false) {
  const u64 offset = linear.page_offset();
  const u64 up = (kPageSize - offset) / size;
  return back && up ? offset / size + 1 : up;
}

bool flat(const Vcpu& cpu, Seg seg, bool write) {
  const cpu::Segment& s = cpu.segment(seg);
  return write ? s.flat_write : s.flat_read;
}

// The host address of `bytes` inside one page; null: to be done element by element. An address that was found holds
// until the instruction ends, though the TLB may have no room for both of its ends.
const u8* hold(Vcpu& cpu, Seg seg, Gva linear, unsigned bytes) {
  if (const u8* host = cpu::tlb_lookup(cpu, linear, bytes, cpu.need_read)) return host;
  if (cpu.need_read & cpu::perm::never || !cpu::probe(cpu, seg, linear, bytes, cpu::Access::read)) return nullptr;
  return cpu::tlb_lookup(cpu, linear, bytes, cpu.need_read);
}

// The same for writing, and to a page of RAM that only decoded code keeps from being written to directly.
class Target {
 public:
  Target(Vcpu& cpu, Gva linear, u64 bytes) : cpu_{cpu}, bytes_{bytes} {
    const u32 need = cpu.need_write;
    const auto size = static_cast<unsigned>(bytes);
    host_ = cpu::tlb_lookup(cpu, linear, size, need);
    if (host_ || need & cpu::perm::never || !cpu::probe(cpu, Seg::es, linear, size, cpu::Access::write)) return;
    host_ = cpu::tlb_lookup(cpu, linear, size, need);
    if (host_) return;
    const cpu::TlbEntry& e = cpu.tlb->half[linear.raw >> 63][linear.raw >> 12 & (cpu::Tlb::kEntries - 1)];
    if (e.tag != linear.page() || !(e.slow_perm & need)) return;
    host_ = e.host(linear);
    beside_code_ = true;
    gpa_ = e.gpa.wrapping_add(linear.page_offset());
  }
  u8* host() const { return host_; }
  // After the bytes are there.
  void written() const {
    if (beside_code_) cpu_.code->written(gpa_.frame(), static_cast<u32>(gpa_.page_offset()), bytes_);
  }

 private:
  Vcpu& cpu_;
  u64 bytes_;
  u8* host_ = nullptr;
  bool beside_code_ = false;
  Gpa gpa_;
};

// As the hardware's element-by-element copy: a destination just above the source repeats the pattern.
template <class T>
void copy_forward(u8* to, const u8* from, u64 count) {
  if (to <= from || to >= from + count * sizeof(T)) {
    std::memmove(to, from, count * sizeof(T));
    return;
  }
  for (u64 i = 0; i < count; i++) std::memcpy(to + i * sizeof(T), from + i * sizeof(T), sizeof(T));
}

// The same from the last element down.
template <class T>
void copy_back(u8* to, const u8* from, u64 count) {
  if (to >= from || to + count * sizeof(T) <= from) {
    std::memmove(to, from, count * sizeof(T));
    return;
  }
  for (u64 i = count; i-- > 0;) std::memcpy(to + i * sizeof(T), from + i * sizeof(T), sizeof(T));
}

template <class T>
void fill_forward(u8* to, T value, u64 count) {
  if constexpr (sizeof(T) == 1)
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  else if constexpr (sizeof(T) == 2)
    asm volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  else if constexpr (sizeof(T) == 4)
    asm volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  else
    asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}

// Each operation: bulk() moves up to `most` elements at once and says how many (0: do one the slow way); one() does
// one, false: fault; again(): does REPE or REPNE go on?
template <class T>
struct Movs {
  static constexpr bool source = true, destination = true;
  static u64 bulk(Vcpu& cpu, const Insn& insn, const Cursor& c, u64 most, bool back) {
    constexpr unsigned size = sizeof(T);
    if (!flat(cpu, insn.mem.seg, false) || !flat(cpu, Seg::es, true)) return 0;
    Gva from = cpu.linear(insn.mem.seg, c.value(isa::rsi)), to = cpu.linear(Seg::es, c.value(isa::rdi));
    const u64 n = std::min({most, in_page(from, size, back), in_page(to, size, back),
                            c.before_wrap(isa::rsi, size, back), c.before_wrap(isa::rdi, size, back)});
    if (n == 0) return 0;
    if (back) from = below(from, (n - 1) * size), to = below(to, (n - 1) * size);
    const u8* source = hold(cpu, insn.mem.seg, from, static_cast<unsigned>(n * size));
    if (!source) return 0;
    const Target target{cpu, to, n * size};
    if (!target.host()) return 0;
    back ? copy_back<T>(target.host(), source, n) : copy_forward<T>(target.host(), source, n);
    target.written();
    return n;
  }
  static bool one(Vcpu& cpu, const Insn& insn, const Cursor& c) {
    T v;
    return cpu::read(cpu, insn.mem.seg, c.value(isa::rsi), v) && cpu::write(cpu, Seg::es, c.value(isa::rdi), v);
  }
};

template <class T>
struct Stos {
  static constexpr bool source = false, destination = true;
  static u64 bulk(Vcpu& cpu, const Insn&, const Cursor& c, u64 most, bool back) {
    constexpr unsigned size = sizeof(T);
    if (!flat(cpu, Seg::es, true)) return 0;
    Gva to = cpu.linear(Seg::es, c.value(isa::rdi));
    const u64 n = std::min({most, in_page(to, size, back), c.before_wrap(isa::rdi, size, back)});
    if (n == 0) return 0;
    if (back) to = below(to, (n - 1) * size);
    const Target target{cpu, to, n * size};
    if (!target.host()) return 0;
    fill_forward<T>(target.host(), low<T>(cpu, isa::rax), n);
    target.written();
    return n;
  }
  static bool one(Vcpu& cpu, const Insn&, const Cursor& c) {
    return cpu::write(cpu, Seg::es, c.value(isa::rdi), low<T>(cpu, isa::rax));
  }
};

template <class T>
struct Lods {
  static constexpr bool source = true, destination = false;
  // Only the last element stays.
  static u64 bulk(Vcpu& cpu, const Insn& insn, const Cursor& c, u64 most, bool back) {
    constexpr unsigned size = sizeof(T);
    if (!flat(cpu, insn.mem.seg, false)) return 0;
    Gva from = cpu.linear(insn.mem.seg, c.value(isa::rsi));
    const u64 n = std::min({most, in_page(from, size, back), c.before_wrap(isa::rsi, size, back)});
    if (n == 0) return 0;
    if (back) from = below(from, (n - 1) * size);
    const u8* source = hold(cpu, insn.mem.seg, from, static_cast<unsigned>(n * size));
    if (!source) return 0;
    T v;
    std::memcpy(&v, source + (back ? 0 : n - 1) * size, size);
    set_low<T>(cpu, isa::rax, v);
    return n;
  }
  static bool one(Vcpu& cpu, const Insn& insn, const Cursor& c) {
    T v;
    if (!cpu::read(cpu, insn.mem.seg, c.value(isa::rsi), v)) return false;
    set_low<T>(cpu, isa::rax, v);
    return true;
  }
};

// Of `count` elements, how many from the first one on go on with REPE (`equal`) or REPNE. `b` null: all are compared
// with `value`.
template <class T>
u64 going_on(const u8* a, const u8* b, T value, u64 count, bool equal) {
  if (sizeof(T) == 1 && !b && !equal) {
    const void* found = std::memchr(a, static_cast<int>(value), count);
    return found ? static_cast<u64>(static_cast<const u8*>(found) - a) : count;
  }
  u64 n = 0;
  if (equal)  // eight bytes at a time
    for (u64 x, y = value * (~u64{0} / static_cast<T>(~T{0})); (n + 8 / sizeof(T)) <= count; n += 8 / sizeof(T)) {
      std::memcpy(&x, a + n * sizeof(T), 8);
      if (b) std::memcpy(&y, b + n * sizeof(T), 8);
      if (x != y) break;
    }
  for (T x, y = value; n < count; n++) {
    std::memcpy(&x, a + n * sizeof(T), sizeof x);
    if (b) std::memcpy(&y, b + n * sizeof(T), sizeof y);
    if ((x == y) != equal) break;
  }
  return n;
}

template <class T>
struct Cmps {
  static constexpr bool source = true, destination = true, compares = true;
  // How many of the next `most` elements do not end it.
  static u64 skim(Vcpu& cpu, const Insn& insn, const Cursor& c, u64 most) {
    if (!flat(cpu, insn.mem.seg, false) || !flat(cpu, Seg::es, false)) return 0;
    const Gva a = cpu.linear(insn.mem.seg, c.value(isa::rsi)), b = cpu.linear(Seg::es, c.value(isa::rdi));
    const u64 n = std::min({most, in_page(a, sizeof(T)), in_page(b, sizeof(T)), c.before_wrap(isa::rsi, sizeof(T)),
                            c.before_wrap(isa::rdi, sizeof(T))});
    if (n == 0) return 0;
    const unsigned bytes = static_cast<unsigned>(n * sizeof(T));
    const u8* host_b = hold(cpu, Seg::es, b, bytes);
    const u8* host_a = host_b ? hold(cpu, insn.mem.seg, a, bytes) : nullptr;
    return host_a ? going_on<T>(host_a, host_b, 0, n, insn.rep) : 0;
  }
  static bool one(Vcpu& cpu, const Insn& insn, const Cursor& c) {
    T a, b;
    const auto source = [&] { return cpu::read(cpu, insn.mem.seg, c.value(isa::rsi), a); };
    const auto destination = [&] { return cpu::read(cpu, Seg::es, c.value(isa::rdi), b); };
    // It shows if both fault: Intel's CPUs read ES:[RDI] first, AMD's the other.
    const bool amd = cpu.vendor() == isa::Vendor::amd;
    if (!(amd ? source() && destination() : destination() && source())) return false;
    u16 f = 0;
    (void)Cmp::apply<T>(f, a, b);
    cpu.arith = f;
    return true;
  }
};

template <class T>
struct Scas {
  static constexpr bool source = false, destination = true, compares = true;
  static u64 skim(Vcpu& cpu, const Insn& insn, const Cursor& c, u64 most) {
    if (!flat(cpu, Seg::es, false)) return 0;
    const Gva at = cpu.linear(Seg::es, c.value(isa::rdi));
    const u64 n = std::min({most, in_page(at, sizeof(T)), c.before_wrap(isa::rdi, sizeof(T))});
    const u8* host = n ? hold(cpu, Seg::es, at, static_cast<unsigned>(n * sizeof(T))) : nullptr;
    return host ? going_on<T>(host, nullptr, low<T>(cpu, isa::rax), n, insn.rep) : 0;
  }
  static bool one(Vcpu& cpu, const Insn&, const Cursor& c) {
    T b;
    if (!cpu::read(cpu, Seg::es, c.value(isa::rdi), b)) return false;
    u16 f = 0;
    (void)Cmp::apply<T>(f, low<T>(cpu, isa::rax), b);
    cpu.arith = f;
    return true;
  }
};

template <template <class> class Op, class T>
Outcome run(Vcpu& cpu, const Insn& insn) {
  constexpr bool compares = requires { Op<T>::compares; };
  Cursor c{cpu, insn};
  const bool back = cpu.sys_flags & cpu::flag::df;
  const u64 step = back ? ~u64{sizeof(T)} + 1 : sizeof(T);
  const auto move = [&](u64 n) {
    if constexpr (Op<T>::source) c.advance(isa::rsi, step * n);
    if constexpr (Op<T>::destination) c.advance(isa::rdi, step * n);
  };
  if (!insn.rep && !insn.repne) {
    if (!Op<T>::one(cpu, insn, c)) return Outcome::fault;
    move(1);
    return Outcome::next;
  }
  // Of 32-bit registers Intel's CPUs zero-extend the count even when it is 0 or the first element faults, and so the
  // pointers of MOVS and STOS; those of LODS, CMPS and SCAS with the first element that is done. AMD's CPUs extend
  // nothing before that. SDM Vol. 2B REP leaves this open.
  const bool intel = cpu.vendor() == isa::Vendor::intel;
  if (intel) {
    c.advance(isa::rcx, 0);
    if constexpr (!compares && Op<T>::destination) move(0);
  }
  // Intel: flags change only with the end of the whole (SDM Vol. 2B REP). AMD: with each element.
  const u16 flags = cpu.arith;
  const auto interrupted = [&](Outcome o) {
    if (intel) cpu.arith = flags;
    return o;
  };
  // A trap after every element when single-stepping; breakpoint hits likewise.
  const bool single =
      (cpu.sys_flags & cpu::flag::tf) || (cpu.debug.dr7 & 0xff) || (cpu.debugger && cpu.debugger->watching());
  for (u64 left = c.value(isa::rcx), steps = 0; left != 0; steps++) {
    u64 n = 0;
    if constexpr (!compares)
      if (!single) n = Op<T>::bulk(cpu, insn, c, left, back);
    if constexpr (compares)
      if (const u64 skip = !back && !single ? Op<T>::skim(cpu, insn, c, left) : 0; skip > 1) {
        move(skip - 1);  // the last of them gives the flags: it is compared below
        c.advance(isa::rcx, 1 - skip);
      }
    if (n == 0) {
      if (!Op<T>::one(cpu, insn, c)) return interrupted(Outcome::fault);
      n = 1;
    }
    move(n);
    c.advance(isa::rcx, 0 - n);
    left = c.value(isa::rcx);
    if constexpr (compares)
      if (((cpu.arith & 0x4000) != 0) != insn.rep) break;
    if (left == 0) break;
    if (single || cpu.attention->load(std::memory_order_relaxed) != 0 || steps >= 1024)
      return interrupted(Outcome::repeat);
  }
  return Outcome::next;
}

template <template <class> class Op>
cpu::Semantic sized(unsigned bytes) {
  switch (bytes) {
    case 1:
      return run<Op, u8>;
    case 2:
      return run<Op, u16>;
    case 4:
      return run<Op, u32>;
    default:
      return run<Op, u64>;
  }
}

}  // namespace

cpu::Semantic find_string(const Insn& insn) {
  // MOVSD and CMPSD are also names of SSE2 instructions: those have operands.
  if (insn.operand_count != 0) return nullptr;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ:
      return sized<Movs>(insn.mem.bytes);
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
      return sized<Stos>(insn.mem.bytes);
    case ZYDIS_MNEMONIC_LODSB:
    case ZYDIS_MNEMONIC_LODSW:
    case ZYDIS_MNEMONIC_LODSD:
    case ZYDIS_MNEMONIC_LODSQ:
      return sized<Lods>(insn.mem.bytes);
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
      return sized<Cmps>(insn.mem.bytes);
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ:
      return sized<Scas>(insn.mem.bytes);
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::semantics
