// What Zydis is asked so that its answer is what a vendor's CPUs do. Where they read bytes otherwise than Zydis, it is
// given other bytes of the same length that mean to it what the CPU does with the real ones. isa::decode and the
// scanner's shallow decoder both read through this: their lengths cannot differ. The table of differences with its
// sources: docs/cpu-model.md, "Vendors".
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <cstddef>

#include "isa/insn.h"

namespace trapline::isa {

class Reader {
 public:
  // `minimal`: Zydis' own mode of that name: lengths, opcodes and raw fields, no operands. UD0 and UD1 then have their
  // ModRM byte for both vendors: no CPU gets beyond them, assemblers write it, and kernels step over it.
  Reader(CodeSize size, Vendor vendor, bool minimal = false);

  // As ZydisDecoderDecodeInstruction. At most 15 bytes are looked at. `context`: for operands(); may be null.
  ZyanStatus read(const u8* bytes, std::size_t available, ZydisDecoderContext* context,
                  ZydisDecodedInstruction& out) const;
  ZyanStatus operands(const ZydisDecoderContext& context, ZydisDecodedInstruction& insn,
                      ZydisDecodedOperand* out) const;

  // The length of an encoding that both manuals reserve and some CPUs run all the same, a bit ignored: EVEX.b without
  // rounding, EVEX.z without a mask, opmask registers beyond k7, VPERMQ without W, LOCK on VERW and on MOV from control
  // registers. 0: it is none of those. Only for telling where the next instruction starts: isa::decode refuses them.
  unsigned reserved_length(const u8* bytes, std::size_t available) const;

  CodeSize code_size() const { return size_; }
  Vendor vendor() const { return vendor_; }

 private:
  ZyanStatus again(const u8* bytes, const ZydisDecodedInstruction& first, u8 from, u8 to, ZydisDecoderContext* context,
                   ZydisDecodedInstruction& out) const;
  ZyanStatus loop_by_prefix(const u8* bytes, ZydisDecoderContext* context, ZydisDecodedInstruction& out) const;
  ZyanStatus beyond_the_end(const u8* bytes, std::size_t available, ZydisDecoderContext* context,
                            ZydisDecodedInstruction& out) const;
  bool reads(const std::array<u8, 15>& bytes, std::size_t available, unsigned& length) const;

  ZydisDecoder decoder_;
  CodeSize size_;
  Vendor vendor_;
  bool minimal_;
};

// A near branch whose operand is 16 bits wide, so that RIP is cut to 16 bits: 66 in 32-bit code, and on AMD in 64-bit
// code unless there is REX.W (APM vol. 3, 1.2.2 and table B-5; SDM vol. 2A JMP, Jcc, CALL: 66 is ignored there). In
// 16-bit code: no, IP is 16 bits wide anyhow.
bool narrow_branch(const ZydisDecodedInstruction& insn, Vendor vendor);

// What AMD's CPUs do otherwise with an instruction that was read as Intel's; null: nothing. UD0 and UD1 are not told:
// no CPU gets beyond them.
const char* vendor_difference(const ZydisDecodedInstruction& as_intel);

}  // namespace trapline::isa
