#include "engine/interpret/build.h"

#include <algorithm>
#include <cstring>

#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/debug_port.h"
#include "cpu/fpu.h"
#include "engine/common/executed_scan.h"
#include "engine/common/sensitive_counts.h"
#include "engine/interpret/branch.h"
#include "engine/interpret/shapes.h"
#include "engine/semantics/complex.h"
#include "isa/decode_memo.h"
#include "isa/traits.h"

namespace trapline::engine::interpret {

namespace {

using Kind = Operand::Kind;
constexpr u32 kMaxInsns = 32;

Outcome undefined(Vcpu& cpu, const Insn&) { return cpu.raise_ud(); }
Outcome too_long(Vcpu& cpu, const Insn&) { return cpu.raise_gp(); }

isa::CodeSize code_size(u32 key) {
  const u32 size = key & key::size_mask;
  return size == 2 ? isa::CodeSize::bits64 : size == 1 ? isa::CodeSize::bits32 : isa::CodeSize::bits16;
}

u8 register_offset(const Operand& op) { return static_cast<u8>((op.reg & 15) * 8 + (op.high8 ? 1 : 0)); }

Address address_kind(const Insn& insn, u32 key) {
  const isa::MemOperand& m = insn.mem;
  const bool special = m.seg == Seg::fs || m.seg == Seg::gs;
  if ((key & key::size_mask) == 2)
    return m.address_bytes != 8 || special ? Address::any : m.index == isa::kNoReg ? Address::base64 : Address::index64;
  if ((key & key::size_mask) == 1 && (key & key::flat_data) && m.address_bytes == 4 && !special && m.seg != Seg::cs)
    return Address::flat32;
  return Address::any;
}

Form form_of(const Insn& insn, u32 key) {
  const Operand& a = insn.op[0];
  const Operand& b = insn.op[1];
  Form form{Shape::reg_reg, a.bytes, address_kind(insn, key), insn.lock};
  if (a.kind == Kind::mem)
    form.shape = b.kind == Kind::gpr ? Shape::mem_reg : Shape::mem_imm;
  else if (b.kind == Kind::mem)
    form.shape = Shape::reg_mem;
  else if (b.kind == Kind::imm)
    form.shape = Shape::reg_imm;
  return form;
}

// A segment, control or vector register among the operands: not for the plain handlers, whatever the mnemonic.
bool plain_operands(const Insn& insn) {
  for (unsigned i = 0; i < insn.operand_count; i++) {
    const Kind k = insn.op[i].kind;
    if (k != Kind::gpr && k != Kind::mem && k != Kind::imm) return false;
  }
  return true;
}

Handler choose_plain(const Insn& insn, const Form& form, u32 key) {
  if (const Handler h = choose_move(insn, form)) return h;
  if (const Handler h = choose_alu(insn, form)) return h;
  if (const Handler h = choose_stack(insn, form, key)) return h;
  if (const Handler h = choose_shift(insn, form)) return h;
  return choose_bits(insn, form);
}

}  // namespace

Op& Builder::append(Handler fn, const Insn& insn) {
  Op op;
  op.fn = fn;
  op.at = static_cast<u16>(at_);
  op.length = insn.length;
  op.left = static_cast<u8>(count_);  // the number before it; place() turns it round
  ops_.push_back(op);
  return ops_.back();
}

bool Builder::add_plain(const Source& source, const Insn& insn) {
  if (!plain_operands(insn)) return false;
  const Form form = form_of(insn, source.key);
  const Handler handler = choose_plain(insn, form, source.key);
  if (!handler) return false;
  const isa::MemOperand& m = insn.mem;
  u8 base = m.base == isa::kRegRip ? kRip : m.base == isa::kNoReg ? kZero : static_cast<u8>(m.base * 8);
  i64 disp = m.disp;
  if (base == kRip) disp += at_ + insn.length;
  if (disp != static_cast<i32>(disp)) {
    Op& scratch = append(set_scratch, insn);
    scratch.base = base;
    scratch.imm = static_cast<u64>(disp);
    base = kScratch;
    disp = 0;
  }
  Op& op = append(handler, insn);
  if (insn.op[0].kind == Kind::gpr) op.dst = op.src = register_offset(insn.op[0]);
  if (insn.op[1].kind == Kind::gpr) op.src = register_offset(insn.op[1]);
  op.base = base;
  op.index = m.index == isa::kNoReg ? kZero : static_cast<u8>((m.index & 15) * 8);
  op.scale = m.scale_log2;
  op.disp = static_cast<i32>(disp);
  op.seg = static_cast<u8>(m.seg) < 6 ? static_cast<u8>(m.seg) : static_cast<u8>(Seg::ds);
  op.address_shift = static_cast<u8>(64 - m.address_bytes * 8);
  op.imm = insn.imm;
  return true;
}

Builder::Step Builder::add_semantic(const Insn& insn, cpu::Semantic semantic, bool ends) {
  last_plain_ = false;
  append(ends ? run_semantic : run_inner_semantic, insn);
  PendingOp piece;
  piece.op = static_cast<u32>(ops_.size() - 1);
  piece.extra.insn = insn;
  piece.extra.semantic = semantic;
  pieces_.push_back(piece);
  return ends ? Step::end : Step::more;
}

// An instruction that only raises: alone in its block, or the last one.
Builder::Step Builder::add_failing(const Insn& insn, cpu::Semantic semantic) {
  return add_semantic(insn, semantic, true);
}

Builder::Step Builder::add_branch(const Source& source, const Insn& insn, Handler handler) {
  Op& op = append(handler, insn);
  if (insn.op[0].kind == Kind::gpr) op.dst = register_offset(insn.op[0]);
  if (insn.op[0].kind == Kind::imm && insn.mnemonic != ZYDIS_MNEMONIC_RET)
    op.imm = u64{at_} + insn.length + insn.imm;
  else
    op.imm = insn.operand_count ? insn.imm & 0xffff : 0;
  const isa::MemOperand& m = insn.mem;
  i64 disp = m.disp;
  op.base = m.base == isa::kRegRip ? kRip : m.base == isa::kNoReg ? kZero : static_cast<u8>((m.base & 15) * 8);
  if (op.base == kRip) disp += at_ + insn.length;
  if (disp != static_cast<i32>(disp)) {  // no room for a preparing op here: the general way
    ops_.pop_back();
    return Step::fault;
  }
  op.disp = static_cast<i32>(disp);
  op.index = m.index == isa::kNoReg ? kZero : static_cast<u8>((m.index & 15) * 8);
  op.scale = m.scale_log2;
  op.seg = static_cast<u8>(m.seg) < 6 ? static_cast<u8>(m.seg) : static_cast<u8>(Seg::ds);
  op.address_shift = static_cast<u8>(64 - m.address_bytes * 8);
  (void)source;
  return Step::end;
}

// With the numbers.
const isa::Raw& Builder::whole(const Insn& insn) {
  Insn same;
  const auto status = isa::decode_often(insn.bytes.data(), insn.bytes.size(), insn.code_size, insn.vendor, same, raw_);
  INVARIANT(status == isa::DecodeStatus::ok, "an instruction that was decoded is none");
  return raw_;
}

// What the plain handlers do not know: semantics, vector instructions, complex ones; else #UD.
Builder::Step Builder::add_called(Vcpu& cpu, const Insn& insn) {
  if (const cpu::Semantic s = find_complex(cpu, insn)) {
    return add_semantic(insn, s, find_complex_branch(insn) != nullptr);
  }
  if (const cpu::Semantic s = cpu::find_fpu_semantic(insn)) return add_semantic(insn, s, false);
  VectorOp vector;
  switch (vector_.prepare(cpu, insn, whole(insn), vector)) {
    case Prepared::yes: {
      append(run_vector, insn);
      PendingOp piece;
      piece.op = static_cast<u32>(ops_.size() - 1);
      piece.extra.insn = insn;
      piece.extra.vector = vector;
      pieces_.push_back(piece);
      return Step::more;
    }
    case Prepared::arena_full:
      return Step::full;
    default:
      return add_failing(insn, undefined);
  }
}

void Builder::try_fuse(const Source& source, const Insn& jcc, bool cross) {
  const int cc = condition_of(jcc.mnemonic);
  if (cc < 0 || !last_plain_ || ops_.size() < 2 || (source.key & key::single)) return;
  if (const Handler h = choose_fused(last_, cc, cross)) ops_[ops_.size() - 2].fn = h;
}

Builder::Step Builder::add(Vcpu& cpu, const Source& source, const Insn& insn) {
  mnemonic_ = static_cast<u16>(insn.mnemonic);
  if (isa::never_offered(*form_)) return add_failing(insn, undefined);
  if (const cpu::Semantic s = cpu::find_semantic(insn)) return add_semantic(insn, s, !isa::block_goes_on(insn));
  const u64 next = at_ + insn.length;
  const u64 target = next + insn.imm;
  const bool cross = crosses_page(source, next) || crosses_page(source, target) || (source.key & key::single);
  if (const Handler h = choose_branch(insn, source.key, cross)) {
    if (add_branch(source, insn, h) == Step::end) {
      try_fuse(source, insn, cross);
      return Step::end;
    }
  } else if (add_plain(source, insn)) {
    last_ = insn;
    last_plain_ = true;
    return Step::more;
  }
  last_plain_ = false;
  return add_called(cpu, insn);
}

// Outside flat code an instruction must lie inside CS (SDM Vol. 3A 5.3). False: it does not.
bool Builder::in_code_segment(Vcpu& cpu, const Source& source, unsigned length) {
  if (source.key & key::flat_code) return true;
  return source.rip + at_ + length - 1 <= cpu.segment(Seg::cs).limit;
}

bool Builder::add_breakpoint(Vcpu& cpu, const Source& source) {
  if (!cpu.debugger || (source.key & key::single) || !cpu.debugger->any()) return false;
  if (!cpu.debugger->breakpoint_at_offset(source.linear.wrapping_add(at_).page_offset())) return false;
  if (count_ == 0) append(stop_at_breakpoint, Insn{});
  return count_ != 0;
}

void Builder::add_count(const Vcpu& cpu, const Insn& insn) {
  u64* const number = sensitive_count(cpu, insn, Way::interpreted);
  if (!number) return;
  append(count_execution, insn).imm = reinterpret_cast<u64>(number);
}

Builder::Step Builder::add_next(Vcpu& cpu, const Source& source) {
  if (at_ >= available_ || add_breakpoint(cpu, source)) return Step::before;
  Insn insn;
  const isa::DecodeStatus status =
      isa::decode_often(code_ + at_, available_ - at_, code_size(source.key), cpu.vendor(), insn, form_);
  if (status == isa::DecodeStatus::truncated) return count_ ? Step::before : add_crossing(cpu, source);
  if (status != isa::DecodeStatus::ok) {
    if (count_) return Step::before;
    insn = Insn{};
    insn.length = 1;
    insn.code_size = code_size(source.key);
    const Step step = add_failing(insn, status == isa::DecodeStatus::too_long ? too_long : undefined);
    at_ += static_cast<u32>(std::min<u64>(15, available_));  // all that was looked at
    count_ = 1;
    return step;
  }
  if (!in_code_segment(cpu, source, insn.length)) {
    if (count_) return Step::before;
    (void)cpu.raise_gp();
    return Step::fault;
  }
  saw(cpu, source.linear.wrapping_add(at_), insn);
  add_count(cpu, insn);
  const Step step = add(cpu, source, insn);
  if (step == Step::full) return step;
  at_ += insn.length;
  count_++;
  return step;
}

// The first instruction goes on in the next page: a block of its own that depends on both.
Builder::Step Builder::add_crossing(Vcpu& cpu, const Source& source) {
  const Gva next_page{(source.linear.page().raw + kPageSize) & cpu.linear_mask};
  if (!in_code_segment(cpu, source, static_cast<unsigned>(available_) + 1)) {
    (void)cpu.raise_gp();
    return Step::fault;
  }
  const cpu::TlbEntry* second = cpu::fetch_lookup(cpu, next_page);
  if (!second) return Step::fault;
  crosses_ = true;
  gpa2_ = second->gpa;
  std::memcpy(code_ + available_, cpu.ram->host(gpa2_), 15);
  Insn insn;
  const isa::DecodeStatus status =
      isa::decode_often(code_, available_ + 15, code_size(source.key), cpu.vendor(), insn, form_);
  if (status != isa::DecodeStatus::ok) {
    insn = Insn{};
    insn.length = 15;
    insn.code_size = code_size(source.key);
    const Step step = add_failing(insn, status == isa::DecodeStatus::too_long ? too_long : undefined);
    at_ = 15;
    count_ = 1;
    return step;
  }
  if (!in_code_segment(cpu, source, insn.length)) {
    (void)cpu.raise_gp();
    return Step::fault;
  }
  saw(cpu, source.linear, insn);
  add_count(cpu, insn);
  const Step step = add(cpu, source, insn);
  if (step == Step::full) return step;
  at_ = insn.length;
  count_ = 1;
  return step == Step::more ? Step::before : step;
}

void Builder::add_end(const Source& source) {
  Insn none;
  none.length = 0;
  const bool chained = (source.key & key::flat_code) && !(source.key & key::single);
  append(chained ? choose_fall_through(crosses_page(source, at_)) : end_block, none);
}

DecodedBlock* Builder::place(Vcpu& cpu, const Source& source) {
  const u64 ops_bytes = ops_.size() * sizeof(Op);
  const u64 extras_bytes = pieces_.size() * sizeof(Extra);
  const u64 header = sizeof(DecodedBlock);
  u8* memory = static_cast<u8*>(cache_.allocate(header + ops_bytes + extras_bytes + at_));
  if (!memory) return nullptr;
  DecodedBlock* block = new (memory) DecodedBlock;
  u8* extras = memory + header + ops_bytes;
  for (const PendingOp& piece : pieces_) {
    ops_[piece.op].imm = reinterpret_cast<u64>(new (extras) Extra(piece.extra));
    extras += sizeof(Extra);
  }
  for (u64 i = 0; i < ops_.size(); i++) {
    ops_[i].slot = static_cast<u8>(i);
    ops_[i].left = static_cast<u8>(count_ - ops_[i].left);
  }
  std::memcpy(static_cast<void*>(block->first()), ops_.data(), ops_bytes);
  std::memcpy(extras, code_, at_);
  block->code = extras;
  block->key = source.key;
  block->gpa = source.gpa;
  block->bytes = static_cast<u16>(at_);
  block->count = static_cast<u8>(count_);
  block->ops = static_cast<u8>(ops_.size());
  block->mnemonic = mnemonic_;
  block->crosses = crosses_;
  block->gpa2 = gpa2_;
  block->generation = &cpu.code->generation(source.gpa.frame());
  block->generation2 = crosses_ ? &cpu.code->generation(gpa2_.frame()) : nullptr;
  return block;
}

Built Builder::build_once(Vcpu& cpu, const Source& source, DecodedBlock** out) {
  ops_.clear();
  pieces_.clear();
  at_ = count_ = 0;
  crosses_ = last_plain_ = false;
  gpa2_ = {};
  available_ = kPageSize - source.gpa.page_offset();
  std::memcpy(code_, source.host, std::min<u64>(available_, kMaxInsns * 15));
  const u32 most = source.key & key::single ? 1 : kMaxInsns;
  Step step = Step::more;
  while (step == Step::more && count_ < most) step = add_next(cpu, source);
  if (step == Step::fault) return Built::fault;
  if (step == Step::full) return Built::full;
  if (step != Step::end) add_end(source);
  *out = place(cpu, source);
  return *out ? Built::yes : Built::full;
}

Built Builder::build(Vcpu& cpu, const Source& source, DecodedBlock** out) {
  for (unsigned attempt = 0;; attempt++) {
    const Built built = build_once(cpu, source, out);
    if (built != Built::yes) return built;
    if (DecodedBlock& block = **out; seal(cpu, block) || attempt == 8) {
      cache_.insert(&block);
      cpu.count.blocks_decoded++;
      cpu.count.instructions_decoded += block.count;
      TRACE(blocks, "decode {} (gpa {}): {} instructions, {} bytes, key {:#x}", source.linear, source.gpa, block.count,
            block.bytes, block.key);
      return Built::yes;
    }
  }
}

// Marked first, so that later writes are noticed; then the bytes must still be those that were decoded. A block that
// fails stays stale: links may still lead to it.
bool seal(Vcpu& cpu, DecodedBlock& block) {
  const u32 offset = static_cast<u32>(block.gpa.page_offset());
  const u32 first = std::min<u32>(block.bytes, static_cast<u32>(kPageSize) - offset);
  const u32 generation = cpu.code->mark_and_number(cpu, block.gpa.frame(), offset, first);
  if (std::memcmp(cpu.ram->host(block.gpa), block.code, first) != 0) return false;
  if (block.crosses) {
    const u32 generation2 = cpu.code->mark_and_number(cpu, block.gpa2.frame(), 0, block.bytes - first);
    if (std::memcmp(cpu.ram->host(block.gpa2), block.code + first, block.bytes - first) != 0) return false;
    block.generation2_seen = generation2;
  }
  block.generation_seen = generation;
  return true;
}

}  // namespace trapline::engine::interpret
