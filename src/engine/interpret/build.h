// From guest bytes to a block of ops.
#pragma once

#include <optional>
#include <vector>

#include "engine/interpret/block_cache.h"
#include "isa/raw.h"

namespace trapline::engine::interpret {

// Where the bytes are. `host` points at the first one; the rest of its page follows.
struct Source {
  Gva linear;  // of the first byte
  u64 rip;     // its offset in CS
  Gpa gpa;
  const u8* host;
  u32 key;
};

enum class Built : u8 {
  yes,
  fault /* cpu.fault is set */,
  full /* no room in the cache or for thunks: flush and try again */
};

class Builder {
 public:
  Builder(BlockCache& cache, VectorUnit& vector) : cache_{cache}, vector_{vector} {}
  // Decodes a block, marks its bytes in the CodeMap and inserts it.
  Built build(Vcpu& cpu, const Source& source, DecodedBlock** out);

 private:
  enum class Step : u8 { more, end, before /* the block ends before this instruction */, fault, full };
  struct PendingOp {  // an op whose Extra still has to be placed
    u32 op;
    Extra extra;
  };

  Built build_once(Vcpu& cpu, const Source& source, DecodedBlock** out);
  Step add_next(Vcpu& cpu, const Source& source);
  Step add_crossing(Vcpu& cpu, const Source& source);
  Step add(Vcpu& cpu, const Source& source, const Insn& insn);
  Step add_branch(const Source& source, const Insn& insn, Handler handler);
  Step add_called(Vcpu& cpu, const Insn& insn);
  Step add_semantic(const Insn& insn, cpu::Semantic semantic, bool ends);
  Step add_failing(const Insn& insn, cpu::Semantic semantic);
  bool add_plain(const Source& source, const Insn& insn);
  const isa::Raw& whole(const Insn& insn);
  bool add_breakpoint(Vcpu& cpu, const Source& source);
  void add_count(const Vcpu& cpu, const Insn& insn);
  void try_fuse(const Source& source, const Insn& jcc, bool cross);
  bool in_code_segment(Vcpu& cpu, const Source& source, unsigned length);
  void add_end(const Source& source);
  DecodedBlock* place(Vcpu& cpu, const Source& source);
  Op& append(Handler fn, const Insn& insn);
  bool crosses_page(const Source& source, u64 distance) const {
    return source.gpa.page_offset() + distance >= kPageSize;  // also when the distance is negative
  }

  BlockCache& cache_;
  VectorUnit& vector_;
  const isa::Raw* form_ = nullptr;  // of the last decoded instruction
  isa::Raw raw_;                    // whole()'s
  // Of the block under way:
  std::vector<Op> ops_;
  std::vector<PendingOp> pieces_;
  u8 code_[kPageSize + 16] = {};  // snapshot of the bytes
  u64 available_ = 0;             // of it, on the first page
  u32 at_ = 0;                    // bytes decoded
  u32 count_ = 0;                 // instructions
  Insn last_;                     // the previous instruction, for fusion
  bool last_plain_ = false;
  bool crosses_ = false;
  Gpa gpa2_;
  u16 mnemonic_ = 0;
};

// Ties a block to the present bytes and generations. False: the bytes are no longer those it was made from.
bool seal(Vcpu& cpu, DecodedBlock& block);

// Handlers that only build.cpp and call.cpp know (call.cpp).
const Op* run_semantic(Vcpu& cpu, const Op* op);        // ends the block
const Op* run_inner_semantic(Vcpu& cpu, const Op* op);  // the block goes on
const Op* run_vector(Vcpu& cpu, const Op* op);
const Op* set_scratch(Vcpu& cpu, const Op* op);  // before an op whose displacement does not fit
const Op* stop_at_breakpoint(Vcpu& cpu, const Op* op);
const Op* count_execution(Vcpu& cpu, const Op* op);  // before a sensitive instruction, while those are counted
const Op* end_block(Vcpu& cpu, const Op* op);        // back to the run loop: segmented code, single instructions

}  // namespace trapline::engine::interpret
