// Decode-time half: instruction -> thunk, shared by all equal instructions. The run-time half is execute.cpp.
#include "engine/vector/vector_unit.h"

#include <bit>
#include <string>
#include <unordered_map>

#include "base/invariant.h"
#include "cpu/fpu.h"
#include "engine/vector/classify.h"
#include "engine/vector/features.h"
#include "engine/vector/thunk.h"

namespace trapline::engine {

struct VectorUnit::Impl {
  explicit Impl(CodeArena& a) : arena{a} {}

  CodeArena& arena;
  emit::Emitter workbench;
  std::unordered_map<std::string, const u8*> thunks;  // by their bytes
  const cpu::Cpuid* policy = nullptr;                 // whose features `allowed` holds
  bool policy_known = false;
  u64 allowed = 0;

  u64 features(const cpu::Cpuid* p) {
    if (!policy_known || p != policy) {
      allowed = vector::guest_features(p);
      policy = p;
      policy_known = true;
    }
    return allowed;
  }

  const u8* thunk_for(const emit::Emitter& code) {
    std::string key{reinterpret_cast<const char*>(code.data()), code.size()};
    if (const auto it = thunks.find(key); it != thunks.end()) return it->second;
    const u8* placed = arena.add({code.data(), code.size()});
    if (placed) thunks.emplace(std::move(key), placed);
    return placed;
  }
};

namespace {

// What execute() relies on: its scratch lines hold the operand, its masks have a bit for each element.
void check(const VectorOp& op, const isa::Raw& d) {
  constexpr unsigned kLine = 64;
  const auto kind = static_cast<vector::Kind>(op.kind);
  const char* const name = ZydisMnemonicGetString(d.insn.mnemonic);
  INVARIANT(op.unit <= static_cast<u8>(cpu::Unit::none), "{} needs unit {}", name, op.unit);
  INVARIANT(kind == vector::Kind::nothing || op.mem_bytes <= kLine, "{} has an operand of {} bytes", name,
            op.mem_bytes);
  INVARIANT(std::has_single_bit(op.align_mask + 1u), "{} is aligned by the mask {:#x}", name, op.align_mask);
  if (kind == vector::Kind::nothing || kind == vector::Kind::reg || op.element_bytes == 0) return;
  INVARIANT(std::has_single_bit(op.element_bytes) && op.element_bytes * op.count <= kLine &&
                op.index_bytes * op.count <= kLine,
            "{} has {} elements of {} bytes by indices of {}", name, op.count, op.element_bytes, op.index_bytes);
  INVARIANT(op.mask_reg < (op.flags & vector::flag::evex ? 8 : 32) && op.data_reg < 32,
            "{} has mask {} and data in register {}", name, op.mask_reg, op.data_reg);
}

}  // namespace

VectorUnit::VectorUnit(CodeArena& arena) : impl_{std::make_unique<Impl>(arena)} {}
VectorUnit::~VectorUnit() = default;
void VectorUnit::forget_all() { impl_->thunks.clear(); }

Prepared VectorUnit::prepare(const cpu::Vcpu& cpu, const isa::Insn& insn, VectorOp& out) {
  emit::Decoded d;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&emit::decoder_for(static_cast<u8>(insn.code_size)), insn.bytes.data(),
                                           insn.length, &d.insn, d.op)))
    return Prepared::not_vector;
  return prepare(cpu, insn, d, out);
}

Prepared VectorUnit::describe(const cpu::Vcpu& cpu, const isa::Raw& d, VectorOp& out) {
  using namespace vector;
  if (!is_vector(d)) return Prepared::not_vector;
  out = VectorOp{};
  const u64 needed = required_features(d.insn.meta.isa_set);
  const bool prefetch_hint = d.insn.meta.category == ZYDIS_CATEGORY_PREFETCH;  // NOPs where the feature is absent
  if (!prefetch_hint && (impl_->features(cpu.cpuid) & needed) != needed) return Prepared::undefined;
  if (!classify(d, cpu.vendor(), out)) return Prepared::undefined;
  check(out, d);
  return Prepared::yes;
}

Prepared VectorUnit::prepare(const cpu::Vcpu& cpu, const isa::Insn& insn, const isa::Raw& d, VectorOp& out) {
  using namespace vector;
  if (const Prepared p = describe(cpu, d, out); p != Prepared::yes) return p;
  switch (static_cast<Kind>(out.kind)) {
    case Kind::nothing:
    case Kind::gather:
    case Kind::scatter:
      return Prepared::yes;  // no host instruction needed
    default:
      break;
  }
  Emitter& code = impl_->workbench;
  code.begin(0);
  if (!build_thunk(d, insn.bytes.data(), code)) return Prepared::undefined;
  out.thunk = impl_->thunk_for(code);
  return out.thunk ? Prepared::yes : Prepared::arena_full;
}

}  // namespace trapline::engine
