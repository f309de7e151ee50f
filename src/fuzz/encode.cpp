#include "fuzz/encode.h"

namespace trapline::fuzz {

namespace {

constexpr u8 kPrefix[4] = {0, 0x66, 0xf3, 0xf2};

// The fourth and fifth bits of the three register numbers.
struct Extended {
  unsigned r3, r4, x3, x4, b3, b4;
};
Extended extended(const Form& f, const Choices& c) {
  const unsigned reg = c.keep_modrm_reg ? 0 : c.reg;
  if (f.memory()) {
    const unsigned base =
        c.memory.kind == MemoryForm::Kind::rip || c.memory.kind == MemoryForm::Kind::absolute ? 0 : c.memory.base;
    const unsigned index = c.memory.has_index ? c.memory.index : 0;
    return {reg >> 3 & 1, reg >> 4 & 1, index >> 3 & 1, index >> 4 & 1, base >> 3 & 1, 0};
  }
  const unsigned rm = c.keep_modrm_rm ? 0 : c.rm;
  return {reg >> 3 & 1, reg >> 4 & 1, rm >> 4 & 1, 0, rm >> 3 & 1, 0};
}

}  // namespace

Encoder::Encoder(const Form& form, const Choices& choices, isa::CodeSize size) : code_{size} {
  if (choices.address_prefix) put(0x67);
  if (choices.segment) put(choices.segment);
  switch (form.encoding) {
    case Encoding::legacy:
      legacy(form, choices);
      break;
    case Encoding::vex:
      vex(form, choices);
      break;
    case Encoding::evex:
      evex(form, choices);
      break;
  }
  modrm(form, choices);
}

void Encoder::legacy(const Form& f, const Choices& c) {
  if (c.lock) put(0xf0);
  if (f.pp) put(kPrefix[f.pp]);
  const Extended e = extended(f, c);
  const unsigned rex = 0x40 | unsigned{f.w} << 3 | e.r3 << 2 | (f.memory() ? e.x3 : 0) << 1 | e.b3;
  if (code_ == isa::CodeSize::bits64 && (rex != 0x40 || c.rex)) put(rex);
  if (f.map) put(0x0f);
  if (f.map == 2) put(0x38);
  if (f.map == 3) put(0x3a);
  put(f.opcode);
}

void Encoder::vex(const Form& f, const Choices& c) {
  const Extended e = extended(f, c);
  const unsigned low = (~unsigned{c.vvvv} & 15) << 3 | unsigned{f.l & 1u} << 2 | f.pp;
  const unsigned x = f.memory() ? e.x3 : 0;
  if (c.short_vex && f.map == 1 && !f.w && !x && !e.b3) {
    put(0xc5);
    put((e.r3 ^ 1) << 7 | low);
  } else {
    put(0xc4);
    put((e.r3 ^ 1) << 7 | (x ^ 1) << 6 | (e.b3 ^ 1) << 5 | f.map);
    put(unsigned{f.w} << 7 | low);
  }
  put(f.opcode);
}

void Encoder::evex(const Form& f, const Choices& c) {
  const Extended e = extended(f, c);
  // With VSIB, V' extends the index; elsewhere vvvv.
  const unsigned v4 = f.memory() && c.memory.has_index && c.memory.index >= 16 ? 1 : c.vvvv >> 4 & 1u;
  put(0x62);
  put((e.r3 ^ 1) << 7 | (e.x3 ^ 1) << 6 | (e.b3 ^ 1) << 5 | (e.r4 ^ 1) << 4 | f.map);
  put(unsigned{f.w} << 7 | (~unsigned{c.vvvv} & 15) << 3 | 4 | f.pp);
  put(unsigned{c.zeroing} << 7 | unsigned{f.l} << 5 | unsigned{c.broadcast} << 4 | (v4 ^ 1) << 3 | c.mask);
  put(f.opcode);
}

void Encoder::modrm(const Form& f, const Choices& c) {
  const unsigned reg = (c.keep_modrm_reg ? f.modrm >> 3 & 7u : c.reg & 7u) << 3;
  if (!f.memory()) {
    put(0xc0 | reg | (c.keep_modrm_rm ? f.modrm & 7u : c.rm & 7u));
    return;
  }
  const MemoryForm& m = c.memory;
  using Kind = MemoryForm::Kind;
  // 16-bit addresses: [SI], [DI], [BP] or [BX] with a 16-bit displacement.
  if (code_ == (c.address_prefix ? isa::CodeSize::bits32 : isa::CodeSize::bits16)) {
    put(0x80 | reg | (4 + (m.base & 3u)));
    size_ += 2;
    return;
  }
  if (m.kind == Kind::rip) {
    put(reg | 5);
    size_ += 4;
    return;
  }
  const unsigned index = m.has_index ? m.index & 7u : 4u;  // 4: none, unless REX.X makes it r12
  if (m.kind == Kind::absolute) {
    put(reg | 4);
    put(unsigned{m.scale} << 6 | index << 3 | 5);
    size_ += 4;
    return;
  }
  const bool base_needs_disp = (m.base & 7) == 5;  // rbp, r13
  unsigned mod = m.kind == Kind::base_disp32 ? 2 : m.kind == Kind::base_disp8 || base_needs_disp ? 1 : 0;
  if (m.has_index || (m.base & 7) == 4) {
    put(mod << 6 | reg | 4);
    put(unsigned{m.scale} << 6 | index << 3 | (m.base & 7u));
  } else {
    put(mod << 6 | reg | (m.base & 7u));
  }
  size_ += mod == 2 ? 4 : mod == 1 ? 1 : 0;
}

}  // namespace trapline::fuzz
