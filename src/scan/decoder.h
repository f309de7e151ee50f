// Decoding for the scanner: shallow, for boundaries and flow, at several times the speed of isa::decode; deep only
// where an instruction may have a row in the instruction table.
#pragma once

#include <Zydis/Zydis.h>

#include "isa/reading.h"
#include "isa/table.h"
#include "scan/bytes.h"

namespace trapline::scan {

enum class Flow : u8 {
  next,      // falls through
  call,      // direct near call: the target, and falls through
  jump,      // direct near jump
  branch,    // conditional
  indirect,  // near jump through a register or memory
  stop,      // returns, far jumps, traps that do not come back
};

struct Shallow {
  u8 length = 0;
  Flow flow = Flow::next;
  bool padding = false;  // NOP or INT3
  bool maybe_sensitive = false;
  bool invalid_opcode = false;    // UD0, UD1, UD2
  bool lea = false;               // LEA with a RIP-relative operand
  bool immediate = false;         // MOV or PUSH of 32 bits
  bool narrow = false;            // a branch whose target is cut to 16 bits
  const char* differs = nullptr;  // read as Intel's: what AMD's CPUs do otherwise
  bool reserved = false;          // some CPUs run it with a bit ignored, for others it is #UD
  i64 distance = 0;  // call, jump, branch, lea: from the next instruction; immediate: the value, sign-extended
};

class Decoder {
 public:
  Decoder(isa::CodeSize size, isa::Vendor vendor);
  // At the front of `bytes`. False: no instruction, or not all of it is there.
  bool shallow(Bytes bytes, Shallow& out) const;
  // The row of what isa::decode sees there; nullptr: innocuous, or no instruction.
  const isa::Row* classify(Bytes bytes) const;
  isa::CodeSize code_size() const { return reader_.code_size(); }
  isa::Vendor vendor() const { return reader_.vendor(); }

 private:
  isa::Reader reader_;
};

}  // namespace trapline::scan
