// Which memory accesses of a block may share one look-up: those whose addresses differ by a constant, where nothing
// in between can end a TLB entry.
#pragma once

#include "engine/hostcode/lower.h"

namespace trapline::engine::translate {

// Fills in TranslatedInsn::memory and TranslatedInsn::stack.
void share_lookups(const hostcode::Context& context, std::vector<hostcode::TranslatedInsn>& pieces);

}  // namespace trapline::engine::translate
