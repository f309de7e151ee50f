// Decoding what has been decoded before. What an encoding means is decided by its prefixes, opcode, ModRM and SIB byte;
// displacement and immediate are numbers beside it. Code consists of few thousand such forms, in endless repetition: each
// is decoded by Zydis once, and after that only its numbers are read.
//
// The answer is isa::decode's, to the last field of both forms (tests/unit/isa/decode_memo_test.cpp); what does not fit
// the rule above (EVEX' scaled displacements, register numbers in immediates, 3DNow!'s opcodes) is left to it each time.
#pragma once

#include "isa/raw.h"

namespace trapline::isa {

// As isa::decode. One memory a thread, some 11 MiB of address space, made at the first call and touched as it is used.
DecodeStatus decode_often(const u8* bytes, std::size_t available, CodeSize size, Vendor vendor, Insn& out, Raw& raw);
// The same, where displacement and immediates of the raw form do not matter: those in `form` are of any instruction of
// the same form. Null unless ok; good until this thread's next call.
DecodeStatus decode_often(const u8* bytes, std::size_t available, CodeSize size, Vendor vendor, Insn& out,
                          const Raw*& form);

}  // namespace trapline::isa
