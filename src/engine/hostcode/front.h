// The front half of the translator: which instructions make up a block and how each is treated.
#pragma once

#include "engine/hostcode/lower.h"
#include "engine/options.h"
#include "engine/vector/vector_unit.h"

namespace trapline::engine::hostcode {

class Front {
 public:
  // `traps`: EngineOptions::traps.
  Front(VectorUnit& unit, const MemoryLowering& memory, const DebugOptions& debug, bool traps = false)
      : unit_{unit}, memory_{memory}, debug_{debug}, traps_{traps} {}
  // Is there a whole instruction?
  static bool decodes(const cpu::Vcpu& cpu, std::span<const u8> bytes, isa::CodeSize size);
  // Decodes from `bytes` (`available` of them, to the end of a page) on, and before offsets of which `ends_at`
  // is true stops. False: no block can start here, or the vector unit is full (*full).
  template <class EndsAt>
  bool collect(const cpu::Vcpu& cpu, const u8* bytes, u64 available, isa::CodeSize size, const Context& context,
               const Ready& ready, std::vector<TranslatedInsn>& out, bool* full, EndsAt ends_at) {
    out.clear();
    *full = false;
    u64 at = 0;
    while (at < available && (out.empty() || !ends_at(at)) &&
           add(cpu, at, {bytes + at, available - at}, size, context, ready, out, full))
      at = out.back().at + u64{out.back().insn.length};
    return !*full && finish(context, out);
  }

 private:
  bool add(const cpu::Vcpu& cpu, u64 at, std::span<const u8> bytes, isa::CodeSize size, const Context& context,
           const Ready& ready, std::vector<TranslatedInsn>& out, bool* full);
  bool finish(const Context& context, std::vector<TranslatedInsn>& out) const;
  void classify(const cpu::Vcpu& cpu, const Context& context, const Ready& ready, TranslatedInsn& p, bool* full);
  bool classify_vector(const cpu::Vcpu& cpu, const Context& context, const Ready& ready, TranslatedInsn& p);
  VectorUnit& unit_;
  const MemoryLowering& memory_;
  const DebugOptions debug_;
  const bool traps_;
};

}  // namespace trapline::engine::hostcode
