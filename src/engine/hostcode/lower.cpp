#include "engine/hostcode/lower.h"

#include <algorithm>

#include "engine/vector/op.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;
using cpu::Seg;

namespace {

// A general register among the operands, and what it becomes.
struct Replaced {
  u8 guest;
  bool high8, written;
  u8 host;
};

}  // namespace

ExitStub& Lowering::site(ExitStub::Kind kind, const TranslatedInsn* piece) {
  ExitStub& s = sites_.emplace_back();
  s.kind = kind;
  s.block = block_;
  s.number = sites_.size() - 1;
  s.before = index_;
  if (piece) {
    s.rip = block_->key.linear + piece->at;
    s.mem = piece->insn.mem;
    s.length = piece->insn.length;
  }
  return s;
}

// AH, BH, CH or DH: the second byte of `from`.
void Lowering::high_byte(u8 to, u8 from) {
  e_.rorx(to, from, 8);
  e_.op(0, false, 0x0FB6, to, to, true);  // MOVZX
}

// -- Instructions that stay themselves
bool Lowering::plain(const TranslatedInsn& p) {
  const vector::Decoded& d = p.raw;
  Fields f = guest_fields(d);
  const bool lea = p.insn.mnemonic == ZYDIS_MNEMONIC_LEA;
  bool count_in_rcx = false;
  for (u8 i = 0; i < d.insn.operand_count; i++)
    if (vector::is_gpr(d.op[i]) && d.op[i].encoding == ZYDIS_OPERAND_ENCODING_NONE &&
        vector::gpr_number(d.op[i].reg.value) == isa::rcx)
      count_in_rcx = true;

  u8 free[3] = {r11};
  unsigned free_count = 1;
  if (f.memory && !lea) {
    bool write = false;
    for (unsigned i = 0; i < p.insn.operand_count; i++) write |= p.insn.op[i].kind == Kind::mem && p.insn.op[i].written;
    const unsigned size =
        p.treatment == Treatment::vector || p.treatment == Treatment::x87 ? p.vector.mem_bytes : p.insn.mem.bytes;
    f.mem = memory_access(p, size, write);
    islands(56);
    unsigned wanted = count_in_rcx ? 2 : 0;
    for (u8 i = 0; i < d.insn.operand_count; i++)
      if (vector::is_gpr(d.op[i]) && d.op[i].encoding != ZYDIS_OPERAND_ENCODING_NONE &&
          (kHost[vector::gpr_number(d.op[i].reg.value)] == kNone || vector::is_high8(d.op[i].reg.value)))
        wanted++;
    if (wanted > 1) {
      e_.lea(r10, f.mem);
      f.mem = at(r10);
      if (!count_in_rcx) free[free_count++] = rcx;
    }
  } else {
    free[free_count++] = r10;
    if (!count_in_rcx) free[free_count++] = rcx;
  }

  if (lea) {
    const isa::MemOperand& m = p.insn.mem;
    const bool wide = m.address_bytes == 8;
    f.memory = true;
    if (m.base == isa::kRegRip || (m.base == isa::kNoReg && m.index == isa::kNoReg)) {
      u64 a = static_cast<u64>(m.disp) + (m.base == isa::kRegRip ? next_of(p) : 0);
      if (!wide) a &= 0xffffffff;
      if (m.base == isa::kRegRip && wide)
        linear(rcx, a);
      else
        e_.mov_imm(rcx, a);
      if (m.base == isa::kRegRip && !wide) block_->movable = false;
      f.mem = at(rcx);
    } else {
      const u8 base = m.base == isa::kNoReg ? kNone : host_or_load(m.base, rcx);
      const u8 index = m.index == isa::kNoReg ? kNone : host_or_load(m.index, r10);
      f.mem = at(base, index, m.scale_log2, static_cast<i32>(m.disp));
      if (!wide && p.insn.operand_bytes == 8) {  // the address is cut before the operand size is
        e_.lea(rcx, f.mem, false);
        f.mem = at(rcx);
      }
    }
    free_count = 1;
  }

  Replaced replaced[4];
  unsigned replaced_count = 0;
  for (u8 i = 0; i < d.insn.operand_count; i++) {
    const ZydisDecodedOperand& op = d.op[i];
    if (!vector::is_gpr(op)) continue;
    u8* field = op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG  ? &f.reg
                : op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ? &f.rm
                : op.encoding == ZYDIS_OPERAND_ENCODING_NDSNDD   ? &f.vvvv
                : op.encoding == ZYDIS_OPERAND_ENCODING_OPCODE   ? &f.opcode_reg
                                                                 : nullptr;
    if (!field) continue;
    const u8 guest = vector::gpr_number(op.reg.value);
    const bool high8 = vector::is_high8(op.reg.value);
    const bool written = op.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    if (kHost[guest] != kNone && !high8) {
      *field = kHost[guest];
      if (op.size == 8 && *field >= rsp && *field <= rdi) f.force_rex = true;
      continue;
    }
    Replaced* known = std::find_if(replaced, replaced + replaced_count,
                                   [&](const Replaced& r) { return r.guest == guest && r.high8 == high8; });
    if (known == replaced + replaced_count) {
      if (replaced_count == 4 || free_count == 0) return false;
      const u8 t = free[--free_count];
      *known = {guest, high8, false, t};
      replaced_count++;
      if (high8)
        high_byte(t, kHost[guest]);
      else
        e_.load(t, gpr(guest));
    }
    known->written |= written;
    *field = known->host;
  }
  if (count_in_rcx) e_.mov(rcx, kHost[isa::rcx]);
  const unsigned opcode = d.insn.opcode;
  if (d.insn.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 && d.insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
      opcode >= 0x40 && opcode <= 0x4F) {
    e_.op(p.insn.operand_bytes == 2 ? 0x66 : 0, false, 0xFF, opcode >= 0x48, f.opcode_reg);  // INC, DEC r
  } else {
    reencode(d, p.insn.bytes.data(), f, e_);
  }
  for (unsigned i = 0; i < replaced_count; i++) {
    const Replaced& r = replaced[i];
    if (!r.written) continue;
    if (r.high8) {
      const u8 whole = kHost[r.guest];
      e_.rorx(whole, whole, 8);
      e_.op(0, false, 0x88, r.host, whole, true);
      e_.rorx(whole, whole, 56);
    } else {
      e_.store(gpr(r.guest), r.host);
    }
  }
  return true;
}

// -- Calls
ExitStub& Lowering::called_site(const TranslatedInsn& p, ExitStub::Kind kind) {
  ExitStub& s = site(kind, &p);
  s.semantic = p.semantic;
  s.called = &called_.emplace_back(Called{p.insn, p.vector});
  s.ends = p.ends;
  return s;
}

void Lowering::call_out(const TranslatedInsn& p, ExitStub::Kind kind) {
  ExitStub& s = called_site(p, kind);
  u32 over = 0;
  if (memory_.thunk(s, context_.bits64)) {
    context_.bits64 ? e_.mov(rcx, r15) : e_.mov32(rcx, r15);
    e_.put(kJrcxz, 0);
    over = e_.size();
  }
  jump_cold(s);
  flush_islands();
  if (over) {
    failed_ |= e_.size() - over > 127;
    e_.patch8(over - 1, static_cast<u8>(e_.size() - over));
  }
  s.resume = e_.pc();
  ended_ = p.ends;
}

void Lowering::step(const TranslatedInsn& p) {
  jump_cold(site(ExitStub::Kind::step, &p));
  flush_islands();
  ended_ = true;
}

// -- The stack
void Lowering::push(const TranslatedInsn& p) {
  const isa::Operand& op = p.insn.op[0];
  const u8 size = p.insn.operand_bytes;
  if (op.kind == Kind::mem) {
    e_.op(0, size == 8, 0x8B, r11, memory_access(p, size, false));
    e_.store(var(&state_.tmp), r11);
  }
  const Mem top = stack_access(p, true, size);
  if (op.kind == Kind::imm) {
    e_.store_imm32(top, static_cast<u32>(p.insn.imm), size == 8);
  } else {
    u8 value = r11;
    if (op.kind == Kind::mem)
      e_.load(r11, var(&state_.tmp));
    else
      value = host_or_load(op.reg, r11);
    e_.op(size == 2 ? 0x66 : 0, size == 8, 0x89, value, top);
  }
  move_rsp(-size);
}

void Lowering::pop(const TranslatedInsn& p) {
  if (p.insn.op[0].kind == Kind::mem) return pop_to_memory(p);
  const u8 size = p.insn.operand_bytes;
  const unsigned prefix = size == 2 ? 0x66 : 0;
  const u8 guest = p.insn.op[0].reg;
  const u8 to = kHost[guest] == kNone ? u8{r11} : kHost[guest];
  e_.op(prefix, size == 8, 0x8B, to, stack_access(p, false, size));
  if (guest == isa::rsp) return;
  if (to == r11) e_.op(prefix, size != 2, 0x89, r11, gpr(guest));
  move_rsp(size);
}

// An address by RSP is that behind the pop (SDM Vol. 2B POP).
void Lowering::pop_to_memory(const TranslatedInsn& p) {
  const u8 size = stack_bytes();
  e_.op(0, size == 8, 0x8B, r11, stack_access(p, false, size));
  e_.store(var(&state_.tmp), r11);
  islands(56);
  popped_ = p.insn.mem.base == isa::rsp ? size : 0;
  const Mem to = memory_access(p, size, true);
  popped_ = 0;
  e_.load(r11, var(&state_.tmp));
  e_.op(0, size == 8, 0x89, r11, to);
  move_rsp(size);
}

void Lowering::leave(const TranslatedInsn& p) {
  const u8 size = stack_bytes();
  ExitStub& s = site(ExitStub::Kind::miss, &p);
  s.resume = e_.pc();
  s.mem = {.seg = Seg::ss, .base = isa::rbp, .address_bytes = size, .bytes = size};
  Place place{.base = rbp};
  if (!context_.bits64) e_.lea(r10, at(rbp), false), place.base = r10;
  e_.op(0, size == 8, 0x8B, r11, reach(place, size, false, p.stack, s));
  e_.lea(rsp, at(rbp, size), context_.bits64);
  e_.op(0, size == 8, 0x8B, rbp, r11);
}

// MOV between the accumulator and a full address (A0 to A3).
void Lowering::move_offset(const TranslatedInsn& p) {
  const bool store = p.insn.op[0].kind == Kind::mem;
  const unsigned size = p.insn.mem.bytes;
  const Mem m = memory_access(p, size, store);
  e_.op(size == 2 ? 0x66 : 0, size == 8, (store ? 0x88 : 0x8A) + (size != 1), rax, m);
}

// MOV of a selector to a register of 32 or 64 bits.
void Lowering::move_selector(const TranslatedInsn& p) {
  const u8 guest = p.insn.op[0].reg;
  const u8 to = kHost[guest] == kNone ? u8{r11} : kHost[guest];
  e_.op(0, false, 0x0FB7, to, var(&cpu_.seg[p.insn.op[1].reg].selector));  // MOVZX
  if (to == r11) e_.store(gpr(guest), r11);
}

// The image of RFLAGS: LAHF and SETO give the arithmetic ones, sys_flags has the others (RF is kept out while no
// breakpoint is armed, VM is never set here).
void Lowering::push_flags(const TranslatedInsn& p) {
  e_.mov(r11, rax);
  e_.put(0x9F, 0x0F, 0x90, 0xC0);  // LAHF; SETO AL
  e_.put(0x0F, 0xB6, 0xCC);        // MOVZX ECX, AH
  e_.put(0x0F, 0xB6, 0xC0);        // MOVZX EAX, AL
  e_.rorx32(rax, rax, 32 - 11);    // OF
  e_.lea(rcx, at(rcx, rax, 0));
  e_.load32(rax, var(&cpu_.sys_flags));
  e_.lea(rcx, at(rcx, rax, 0));
  e_.store(var(&state_.tmp), rcx);
  e_.mov(rax, r11);
  const Mem top = stack_access(p, true, 8);
  e_.load(r11, var(&state_.tmp));
  e_.store(top, r11);
  move_rsp(-8);
}

// CLD and STD.
void Lowering::set_direction(bool down) {
  constexpr u32 kBit = 10;
  e_.load32(rcx, var(&cpu_.sys_flags));
  e_.rorx32(rcx, rcx, kBit + 1);  // DF is bit 31
  e_.lea(rcx, at(rcx, rcx, 0), false);
  e_.rorx32(rcx, rcx, 32 - kBit);
  if (down) e_.lea(rcx, at(rcx, 1 << kBit));
  e_.store32(var(&cpu_.sys_flags), rcx);
}

// CLI and STI at CPL 0. The shadow of STI is kept by there being no look at events before the next instruction; with an
// interrupt waiting the semantic does it all.
void Lowering::set_interrupts(const TranslatedInsn& p) {
  const bool set = p.insn.mnemonic == ZYDIS_MNEMONIC_STI;
  ExitStub* s = nullptr;
  if (set) {
    s = &called_site(p, ExitStub::Kind::semantic);
    e_.op(0, false, 0x0FB6, rcx, var(&cpu_.interrupt_waiting));
    e_.put(kJrcxz, 5);
    jump_cold(*s);
  }
  e_.load32(rcx, var(&cpu_.sys_flags));
  e_.rorx32(rcx, rcx, 10);  // IF is bit 31
  e_.lea(rcx, at(rcx, rcx, 0), false);
  e_.rorx32(rcx, rcx, 32 - 9);
  if (set) e_.lea(rcx, at(rcx, 0x200));
  e_.store32(var(&cpu_.sys_flags), rcx);
  if (s) s->resume = e_.pc();
}

// Itself; after many, C++ steps aside for a vCPU that may wait for this host CPU.
void Lowering::pause(const TranslatedInsn& p) {
  ExitStub& s = site(ExitStub::Kind::pause, &p);
  e_.load(rcx, var(&state_.pauses));
  e_.lea(rcx, at(rcx, -1));
  e_.store(var(&state_.pauses), rcx);
  jump_cold_if_rcx_0({.site = &s});
  s.resume = e_.pc();
  e_.put(0xF3, 0x90);
}

void Lowering::swap_gs() {
  cpu::Segment& gs = cpu_.seg[static_cast<u8>(Seg::gs)];
  e_.load(r10, var(&gs.base));
  e_.load(r11, var(&cpu_.msr.kernel_gs_base));
  e_.store(var(&gs.base), r11);
  e_.store(var(&gs.linear_base), r11);
  e_.store(var(&cpu_.msr.kernel_gs_base), r10);
}

// CX has a control word: RCX becomes 0 if it masks all exceptions.
void Lowering::test_x87_masks() {
  e_.lea(rcx, at(kNone, rcx, 2), false);
  e_.op(0, false, 0x0FB6, rcx, rcx, true);  // the six masks, in the upper bits of CL
  e_.lea(rcx, at(rcx, -0xfc));
}

// FLDCW of what masks all exceptions, as the block's head has asked for. Else it is the interpreter's.
void Lowering::load_x87_control(const TranslatedInsn& p) {
  e_.op(0, false, 0x0FB7, rcx, memory_access(p, 2, false));
  e_.store32(var(&state_.tmp), rcx);
  test_x87_masks();
  e_.put(kJrcxz, 5);
  jump_cold(site(ExitStub::Kind::step, &p));
  e_.op(0, false, 0xD9, 5, var(&state_.tmp));
}

// The last x87 instruction before the block may be left for good without a call.
bool Lowering::last_x87() const {
  for (std::size_t i = index_ + 1u; i < pieces_->size(); i++) {
    const TranslatedInsn& p = (*pieces_)[i];
    if (p.treatment == Treatment::branch) return true;
    if (p.treatment == Treatment::x87 && p.vector.flags & vector::flag::pointers) return false;
  }
  return true;
}

// The address of its operand: the instruction has changed no register that is part of it.
void Lowering::store_fdp(const TranslatedInsn& p) {
  islands(56);
  const Place place = place_of(p);
  if (place.base == kNone)
    e_.mov_imm(r10, place.address);
  else if (place.base != r10 || place.disp != 0)
    e_.lea(r10, at(place.base, place.disp));
  e_.store(var(&cpu_.x87.fdp), r10);
}

// The pointers that the instruction leaves behind. FDP is stored at once; where the block goes on to another x87
// instruction, calls in between find the others by Block::x87.
void Lowering::note_x87(const TranslatedInsn& p) {
  if (!(p.vector.flags & vector::flag::pointers)) return;
  const u64 rip = block_->key.linear + p.at;
  const bool all = !(p.vector.flags & vector::flag::fdp_on_exception_only);
  const bool memory = all && p.vector.mem_bytes != 0;
  if (memory) store_fdp(p);
  draft_.x87.push_back(
      {rip, index_, p.vector.fop, all, memory ? static_cast<u8>(p.insn.mem.seg) : Block::Pointer::kNoMemory});
  if (!last_x87()) return;
  const auto store16 = [&](const u16& to) { e_.op(0x66, false, 0x89, r11, var(&to)); };
  const auto selector = [&](u8 segment) { e_.op(0, false, 0x0FB7, r11, var(&cpu_.seg[segment].selector)); };
  islands(56);
  linear(r11, rip);
  e_.store(var(&cpu_.x87.fip), r11);
  selector(static_cast<u8>(Seg::cs));
  store16(cpu_.x87.fcs);
  if (!all) return;
  islands(56);
  e_.mov_imm(r11, p.vector.fop);
  store16(cpu_.x87.fop);
  const auto last = std::find_if(draft_.x87.rbegin(), draft_.x87.rend(),
                                 [](const Block::Pointer& x) { return x.segment != Block::Pointer::kNoMemory; });
  if (last == draft_.x87.rend()) return;
  selector(last->segment);
  store16(cpu_.x87.fds);
}

void Lowering::special(const TranslatedInsn& p) {
  switch (p.insn.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
      return push(p);
    case ZYDIS_MNEMONIC_POP:
      return pop(p);
    case ZYDIS_MNEMONIC_LEAVE:
      return leave(p);
    case ZYDIS_MNEMONIC_MOV:
      return p.insn.op[1].kind == Kind::seg ? move_selector(p) : move_offset(p);
    case ZYDIS_MNEMONIC_PUSHFQ:
      return push_flags(p);
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
      return set_interrupts(p);
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
      return set_direction(p.insn.mnemonic == ZYDIS_MNEMONIC_STD);
    case ZYDIS_MNEMONIC_SWAPGS:
      return swap_gs();
    case ZYDIS_MNEMONIC_PAUSE:
      return pause(p);
    case ZYDIS_MNEMONIC_XLAT:
      return xlat(p);
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
      return bit_string(p);
    default:
      break;
  }
  StringForm form;
  return string_form(p.insn, context_.bits64, &form) ? string_once(p, form) : step(p);
}

void Lowering::insn(const TranslatedInsn& p) {
  draft_.insns.push_back({e_.size(), p.at});
  islands(p.treatment == Treatment::nothing ? 0 : 56);
  switch (p.treatment) {
    case Treatment::plain:
    case Treatment::vector:
      if (!plain(p)) step(p);
      break;
    case Treatment::x87:
      if (p.insn.mnemonic == ZYDIS_MNEMONIC_FLDCW)
        load_x87_control(p);
      else if (plain(p))
        note_x87(p);
      else
        step(p);
      break;
    case Treatment::nothing:
      break;
    case Treatment::special:
      special(p);
      break;
    case Treatment::branch:
      branch(p);
      break;
    case Treatment::semantic:
      call_out(p, ExitStub::Kind::semantic);
      break;
    case Treatment::unit:
      call_out(p, ExitStub::Kind::vector);
      break;
    case Treatment::step:
      step(p);
      break;
  }
}

// -- The block
void Lowering::head() {
  if (!context_.counted) return;
  ExitStub& s = site(ExitStub::Kind::limit, nullptr);
  s.rip = block_->key.linear;
  e_.load(rcx, var(&state_.left));
  e_.lea(r10, at(rcx, -static_cast<i32>(block_->count)));
  static_assert(kLeftBias == u64{1} << 62);
  e_.mov_imm(rcx, 62);
  e_.shrx(rcx, r10, rcx);
  jump_cold_if_rcx_0({.site = &s});
  e_.store(var(&state_.left), r10);
}

void Lowering::call_site(const ExitStub& s, const Place& place) {
  u64 thunk = memory_.thunk(s, context_.bits64);
  if (s.kind == ExitStub::Kind::indirect && !s.asked) {
    c_.lea(rcx, at(r10, context_.tag));
    thunk = thunks_.indirect;
  } else if (s.kind == ExitStub::Kind::miss && thunk) {
    c_.lea(rcx, at(place.base, place.disp));
  }
  c_.mov_imm64(r11, reinterpret_cast<u64>(&s));
  c_.note(Fixup::Kind::site, c_.size() - 8, s.number);
  c_.jmp(thunk ? thunk : thunks_.call);
}

void Lowering::finish() {
  flush_islands();
  for (std::size_t i = 0; i < taken_.size(); i++) {
    const Taken t = taken_[i];
    e_.patch32(t.at, e_.size() - (t.at + 4));
    exit_to(t.target, t.from, t.uncounted, t.before);
  }
  taken_.clear();
  ExitStub& stale = site(ExitStub::Kind::stale, nullptr);
  stale.rip = block_->key.linear;
  stale.before = 0;
  block_->cold = block_->stale_stub = c_.pc();
  call_site(stale, {});
  for (const Cold& c : cold_) {
    e_.patch32(c.at, c_.pc() - (e_.pc() - e_.size() + c.at + 4));
    e_.note(Fixup::Kind::cold, c.at, c_.size());
    if (c.tail != Cold::kNoTail)
      memory_.tail(*this, c.tail);
    else
      call_site(*c.site, c.place);
  }
  block_->cold_end = c_.pc();
  cold_.clear();
}

bool Lowering::block(Block& block, const Context& context, const std::vector<TranslatedInsn>& pieces,
                     u32 island_margin) {
  block_ = &block;
  draft_.clear();
  island_margin_ = island_margin;
  context_ = context;
  ended_ = failed_ = false;
  index_ = 0;
  pending_.clear();
  cold_.clear();
  memory_.begin_block();
  taken_.clear();
  block.movable = context.movable;
  block.first_site = sites_.size();
  block.entry = e_.pc();
  head();
  if (std::any_of(pieces.begin(), pieces.end(),
                  [](const TranslatedInsn& p) { return p.treatment == Treatment::vector; })) {
    // Where the vector registers are elsewhere, they come back first.
    e_.load(rcx, var(&state_.vec_live));
    e_.put(kJrcxz, 2);
    e_.byte(0xEB);
    const u32 over = e_.size();
    e_.byte(0);
    const u32 start = e_.size();
    e_.op(0, true, 0x8D, r11, Mem{.absolute = e_.pc() + 7 + 5});
    e_.jmp(thunks_.load_vec);
    e_.patch8(over, static_cast<u8>(e_.size() - start));
  }
  pieces_ = &pieces;
  block.uses_x87 =
      std::any_of(pieces.begin(), pieces.end(), [](const TranslatedInsn& p) { return p.treatment == Treatment::x87; });
  if (block.uses_x87) {
    index_ = 0;
    ExitStub& parked = site(ExitStub::Kind::x87, nullptr);
    parked.rip = block.key.linear;
    parked.resume = e_.pc();
    e_.op(0, false, 0x0FB6, rcx, var(&cpu_.x87.live));
    jump_cold_if_rcx_0({.site = &parked});
    // With an exception unmasked, FOP and FDP would matter: the interpreter's.
    ExitStub& unmasked = site(ExitStub::Kind::step, nullptr);
    unmasked.rip = block.key.linear;
    e_.op(0, false, 0xD9, 7, var(&state_.tmp));  // FNSTCW
    e_.op(0, false, 0x0FB6, rcx, var(&state_.tmp));
    test_x87_masks();
    e_.put(kJrcxz, 5);
    jump_cold(unmasked);
  }
  for (index_ = 0; index_ < pieces.size() && !ended_; index_++) insn(pieces[index_]);
  if (!ended_) {
    const u64 next = block.key.linear + block.bytes;
    exit_to(next, 0, 0, block.count);
  }
  finish();
  block.end = e_.pc();
  block.sites = sites_.size() - block.first_site;
  return !failed_ && !e_.overflowed() && !c_.overflowed();
}

}  // namespace trapline::engine::hostcode
