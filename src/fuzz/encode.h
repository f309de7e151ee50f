// Bytes of one instruction from a Form and the free choices that its encoding leaves (SDM Vol. 2A chapter 2). Knows
// nothing of what an instruction means: what comes out is judged by the decoder.
#pragma once

#include "fuzz/forms.h"

namespace trapline::fuzz {

struct MemoryForm {
  enum class Kind : u8 { base_disp32, base_disp8, base_only, rip, absolute } kind = Kind::base_disp32;
  u8 base = 3;
  bool has_index = false;
  u8 index = 15;  // a vector register's number too
  u8 scale = 0;
};

struct Choices {
  u8 reg = 0, rm = 0, vvvv = 0;  // register numbers, 0..31
  bool keep_modrm_reg = true;    // reg field is part of the opcode
  bool keep_modrm_rm = true;
  MemoryForm memory;
  bool address_prefix = false, lock = false, broadcast = false, zeroing = false, short_vex = false, rex = false;
  u8 segment = 0;  // prefix byte or 0
  u8 mask = 0;
};

class Encoder {
 public:
  // Code of 16 and 32 bits: register numbers below 8, no REX.
  explicit Encoder(const Form& form, const Choices& choices = {}, isa::CodeSize size = isa::CodeSize::bits64);
  u8* bytes() { return bytes_; }              // followed by zeros for immediates
  std::size_t size() const { return size_; }  // up to the displacement's end

 private:
  void put(unsigned byte) { bytes_[size_++] = static_cast<u8>(byte); }
  void legacy(const Form& f, const Choices& c);
  void vex(const Form& f, const Choices& c);
  void evex(const Form& f, const Choices& c);
  void modrm(const Form& f, const Choices& c);

  isa::CodeSize code_;
  u8 bytes_[48] = {};
  std::size_t size_ = 0;
};

}  // namespace trapline::fuzz
