// String instructions: without REP in line, with REP by a thunk (strings.h).
#include "engine/hostcode/lower.h"

namespace trapline::engine::hostcode {

// Of one end: RSI or RDI.
Mem Lowering::string_access(const TranslatedInsn& p, u8 guest, unsigned size, bool write) {
  islands(56);
  ExitStub& s = site(ExitStub::Kind::miss, &p);
  s.resume = e_.pc();
  s.mem = {.base = guest, .address_bytes = stack_bytes(), .bytes = static_cast<u16>(size)};
  Place place{.base = kHost[guest]};
  if (!context_.bits64) {  // the upper half may be anything
    e_.lea(r10, at(place.base), false);
    place.base = r10;
  }
  return reach(place, size, write, {}, s);
}

void Lowering::string_once(const TranslatedInsn& p, const StringForm& f) {
  const unsigned size = 1u << f.size_log2;
  switch (f.op) {
    case StringOp::movs:
    case StringOp::cmps: {
      e_.load_sized(size, r11, string_access(p, isa::rsi, size, false));
      e_.store(var(&state_.tmp), r11);
      const Mem m = string_access(p, isa::rdi, size, !f.compares());
      e_.load(r11, var(&state_.tmp));
      f.compares() ? e_.cmp_sized(size, r11, m) : e_.store_sized(size, m, r11);
      break;
    }
    case StringOp::stos:
      e_.store_sized(size, string_access(p, isa::rdi, size, true), rax);
      break;
    case StringOp::lods:
      e_.load_sized(size, rax, string_access(p, isa::rsi, size, false));
      break;
    case StringOp::scas:
      e_.cmp_sized(size, rax, string_access(p, isa::rdi, size, false));
      break;
  }
  islands(56);
  // RCX = - DF; each pointer moves by size - 2 * size * DF.
  static_assert(cpu::flag::df == 1 << 10);
  e_.load32(rcx, var(&cpu_.sys_flags));
  e_.rorx(rcx, rcx, 11);
  e_.mov_imm(r11, 63);
  e_.sarx(rcx, rcx, r11);
  if (size == 8) e_.lea(rcx, at(rcx, rcx, 0));
  const u8 scale = size == 8 ? 3 : static_cast<u8>(f.size_log2 + 1);
  const auto step = [&](u8 reg) { e_.lea(reg, at(reg, rcx, scale, static_cast<i32>(size)), context_.bits64); };
  if (f.reads_source()) step(rsi);
  if (f.has_destination()) step(rdi);
}

}  // namespace trapline::engine::hostcode
