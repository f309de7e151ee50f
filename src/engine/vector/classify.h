// What execute() must know of an instruction beside its thunk: the unit to check, how its memory operand is reached and
// masked, alignment, MXCSR and x87 duties. Intel SDM Vol. 2A sections 2.4 ff (exception types).
#pragma once

#include "engine/emit/rebuild.h"
#include "engine/vector/op.h"
#include "engine/vector/vector_unit.h"

namespace trapline::engine::vector {

using namespace emit;

// Is it computation on x87, MMX, SSE, AVX or mask registers (or one of their scalar companions: CRC32, MOVNTI)?
bool is_vector(const Decoded& d);

// Fills in everything but the thunk, as processors of this vendor have it. False: the form is reserved (#UD).
bool classify(const Decoded& d, isa::Vendor vendor, VectorOp& out);

}  // namespace trapline::engine::vector
