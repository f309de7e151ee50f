#include "engine/translate/lower.h"

#include <algorithm>

#include "engine/vector/op.h"

namespace trapline::engine::translate {

using Kind = isa::Operand::Kind;
using cpu::Seg;

namespace {

constexpr u8 kJrcxz = 0xE3;
constexpr i32 kJumpOffset = -static_cast<i32>(Views::kJumpBytes);

// A general register among the operands, and what it becomes.
struct Replaced {
  u8 guest;
  bool high8, written;
  u8 host;
};

}  // namespace

Site& Lowering::site(Site::Kind kind, const Piece* piece) {
  Site& s = sites_.emplace_back();
  s.kind = kind;
  s.block = block_;
  s.before = index_;
  if (piece) {
    s.rip = block_->key.linear + piece->at;
    s.insn = piece->insn;
  }
  return s;
}

// -- Ways to code that is seldom run. It stands behind the block; JRCXZ reaches 127 bytes, so islands of jumps are put
// in between.
void Lowering::jump_cold(Site& s) {
  e_.byte(0xE9);
  cold_.push_back({e_.size(), &s});
  e_.imm32(0);
}

void Lowering::miss(Site& s) {
  e_.byte(kJrcxz);
  pending_.push_back({e_.size(), &s});
  e_.byte(0);
}

void Lowering::flush_islands() {
  for (const Fix& f : pending_) {
    const u32 distance = e_.size() - (f.at + 1);
    if (distance > 127) failed_ = true;
    e_.patch8(f.at, static_cast<u8>(distance));
    jump_cold(*f.site);
  }
  pending_.clear();
}

// An island goes where the first waiting jump is `island_distance_` bytes away: what comes before the next look is
// seldom longer than the rest of its reach.
void Lowering::islands() {
  if (pending_.empty() || e_.size() - pending_.front().at < island_distance_) return;
  e_.byte(0xEB);
  const u32 at = e_.size();
  e_.byte(0);
  flush_islands();
  e_.patch8(at, static_cast<u8>(e_.size() - (at + 1)));
}

// -- Memory
// The register of a general register's value, for use as an address.
u8 Lowering::host_or_load(u8 guest, u8 scratch) {
  if (kHost[guest] != kNone) return kHost[guest];
  e_.load(scratch, gpr(guest));
  return scratch;
}

// The register with the linear address of insn.mem: r10, or the base register itself.
u8 Lowering::address(const Piece& p) {
  const isa::MemOperand& m = p.insn.mem;
  const bool wide = m.address_bytes == 8;
  const bool based = m.seg == Seg::fs || m.seg == Seg::gs;
  if (m.base == isa::kRegRip) {
    const u64 a = next_of(p) + static_cast<u64>(m.disp);
    e_.mov_imm(r10, wide ? a : a & 0xffffffff);
  } else if (m.base == isa::kNoReg && m.index == isa::kNoReg) {
    e_.mov_imm(r10, wide ? static_cast<u64>(m.disp) : static_cast<u64>(m.disp) & 0xffffffff);
  } else {
    const u8 base = m.base == isa::kNoReg ? kNone : host_or_load(m.base, r10);
    const u8 index = m.index == isa::kNoReg ? kNone : host_or_load(m.index, r11);
    if (wide && !based && index == kNone && m.disp == 0) return base;
    e_.lea(r10, at(base, index, m.scale_log2, static_cast<i32>(m.disp)), wide);
  }
  if (based) {
    e_.load(r11, var(&cpu_.seg[static_cast<u8>(m.seg)].linear_base));
    e_.lea(r10, at(r10, r11, 0), context_.bits64);
  }
  return r10;
}

// RCX: what to add to the address. Clobbers R11.
void Lowering::lookup(u8 a, unsigned size, bool write, Site& s) {
  islands();
  s.size = static_cast<u8>(size);
  s.write = write;
  const Mem mask = var(&state_.page_bits);
  e_.pext(rcx, a, mask);
  if (size == 1) {
    e_.lea(rcx, at(rcx, rcx, 0));
  } else {
    e_.lea(r11, at(a, static_cast<i32>(size - 1)));
    e_.pext(r11, r11, mask);
    e_.lea(rcx, at(rcx, r11, 0));
  }
  Mem slot = at(kNone, rcx, 3);
  if (write) {
    e_.load(r11, var(&state_.write_table));
    slot = at(r11, rcx, 3);
  }
  slot.gs = true;
  e_.load(rcx, slot);
  miss(s);
}

// RCX: what to add to R10, which points at the stack's new or present top.
void Lowering::lookup_stack(bool push, unsigned size, const Piece& p) {
  islands();
  Site& s = site(Site::Kind::miss, &p);
  s.resume = e_.pc();
  s.operand = push ? Operand::push : Operand::pop;
  e_.lea(r10, at(rsp, push ? -static_cast<i32>(size) : 0), context_.bits64);
  lookup(r10, size, push, s);
}

void Lowering::move_rsp(i32 by) { e_.lea(rsp, at(rsp, by), context_.bits64); }

// -- Instructions that stay themselves
bool Lowering::plain(const Piece& p) {
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
    Site& s = site(Site::Kind::miss, &p);
    s.resume = e_.pc();
    bool write = false;
    for (unsigned i = 0; i < p.insn.operand_count; i++) write |= p.insn.op[i].kind == Kind::mem && p.insn.op[i].written;
    const u8 a = address(p);
    const unsigned size =
        p.treatment == Treatment::vector || p.treatment == Treatment::x87 ? p.vector.mem_bytes : p.insn.mem.bytes;
    lookup(a, size, write, s);
    f.mem = at(a, rcx, 0);
    unsigned wanted = count_in_rcx ? 2 : 0;
    for (u8 i = 0; i < d.insn.operand_count; i++)
      if (vector::is_gpr(d.op[i]) && d.op[i].encoding != ZYDIS_OPERAND_ENCODING_NONE &&
          (kHost[vector::gpr_number(d.op[i].reg.value)] == kNone || vector::is_high8(d.op[i].reg.value)))
        wanted++;
    if (wanted > 1) {
      e_.lea(r10, at(a, rcx, 0));
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
      e_.mov_imm(rcx, a);
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
        e_.pext(t, kHost[guest], var(&state_.high8));
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
void Lowering::call_out(const Piece& p, Site::Kind kind) {
  Site& s = site(kind, &p);
  s.semantic = p.semantic;
  s.vector = p.vector;
  s.ends = p.ends;
  jump_cold(s);
  flush_islands();
  s.resume = e_.pc();
  ended_ = p.ends;
}

void Lowering::step(const Piece& p) {
  jump_cold(site(Site::Kind::step, &p));
  flush_islands();
  ended_ = true;
}

// -- The stack
void Lowering::push(const Piece& p) {
  const isa::Operand& op = p.insn.op[0];
  const u8 size = stack_bytes();
  u8 value = kNone;
  if (op.kind == Kind::mem) {
    Site& s = site(Site::Kind::miss, &p);
    s.resume = e_.pc();
    const u8 a = address(p);
    lookup(a, size, false, s);
    e_.op(0, size == 8, 0x8B, r11, at(a, rcx, 0));
    e_.store(var(&state_.tmp), r11);
  }
  lookup_stack(true, size, p);
  const Mem top = at(r10, rcx, 0);
  if (op.kind == Kind::imm) {
    e_.store_imm32(top, static_cast<u32>(p.insn.imm), size == 8);
  } else {
    if (op.kind == Kind::mem) {
      e_.load(r11, var(&state_.tmp));
      value = r11;
    } else {
      value = host_or_load(op.reg, r11);
    }
    e_.op(0, size == 8, 0x89, value, top);
  }
  move_rsp(-size);
}

void Lowering::pop(const Piece& p) {
  const u8 size = stack_bytes();
  const u8 guest = p.insn.op[0].reg;
  lookup_stack(false, size, p);
  const u8 to = kHost[guest] == kNone ? u8{r11} : kHost[guest];
  e_.op(0, size == 8, 0x8B, to, at(r10, rcx, 0));
  if (guest == isa::rsp) return;
  if (to == r11) e_.store(gpr(guest), r11);
  move_rsp(size);
}

void Lowering::leave(const Piece& p) {
  const u8 size = stack_bytes();
  Site& s = site(Site::Kind::miss, &p);
  s.resume = e_.pc();
  s.insn.mem = {.seg = Seg::ss, .base = isa::rbp, .address_bytes = size, .bytes = size};
  s.operand = Operand::explicit_;
  e_.lea(r10, at(rbp), context_.bits64);
  lookup(r10, size, false, s);
  e_.op(0, size == 8, 0x8B, r11, at(r10, rcx, 0));
  e_.lea(rsp, at(rbp, size), context_.bits64);
  e_.op(0, size == 8, 0x8B, rbp, r11);
}

// MOV between the accumulator and a full address (A0 to A3).
void Lowering::move_offset(const Piece& p) {
  const bool store = p.insn.op[0].kind == Kind::mem;
  const unsigned size = p.insn.mem.bytes;
  Site& s = site(Site::Kind::miss, &p);
  s.resume = e_.pc();
  const u8 a = address(p);
  lookup(a, size, store, s);
  e_.op(size == 2 ? 0x66 : 0, size == 8, (store ? 0x88 : 0x8A) + (size != 1), rax, at(a, rcx, 0));
}

// The image of RFLAGS: LAHF and SETO give the arithmetic ones, sys_flags has the others (RF is kept out while no
// breakpoint is armed, VM is never set here).
void Lowering::push_flags(const Piece& p) {
  e_.mov(r11, rax);
  e_.put(0x9F, 0x0F, 0x90, 0xC0);  // LAHF; SETO AL
  e_.put(0x0F, 0xB6, 0xCC);        // MOVZX ECX, AH
  e_.put(0x0F, 0xB6, 0xC0);        // MOVZX EAX, AL
  e_.pdep(rax, rax, var(&state_.overflow));
  e_.lea(rcx, at(rcx, rax, 0));
  e_.load32(rax, var(&cpu_.sys_flags));
  e_.lea(rcx, at(rcx, rax, 0));
  e_.store(var(&state_.tmp), rcx);
  e_.mov(rax, r11);
  lookup_stack(true, 8, p);
  e_.load(r11, var(&state_.tmp));
  e_.store(at(r10, rcx, 0), r11);
  move_rsp(-8);
}

// CLI and STI at CPL 0. The shadow of STI is kept by there being no look at events before the next instruction; with an
// interrupt waiting the semantic does it all.
void Lowering::set_interrupts(const Piece& p) {
  const bool set = p.insn.mnemonic == ZYDIS_MNEMONIC_STI;
  Site* s = nullptr;
  if (set) {
    s = &site(Site::Kind::semantic, &p);
    s->semantic = p.semantic;
    e_.op(0, false, 0x0FB6, rcx, var(&cpu_.interrupt_waiting));
    e_.put(kJrcxz, 5);
    jump_cold(*s);
  }
  e_.load32(rcx, var(&cpu_.sys_flags));
  e_.pext(rcx, rcx, var(&state_.not_if));
  e_.pdep(rcx, rcx, var(&state_.not_if));
  if (set) e_.lea(rcx, at(rcx, 0x200));
  e_.store32(var(&cpu_.sys_flags), rcx);
  if (s) s->resume = e_.pc();
}

void Lowering::swap_gs() {
  cpu::Segment& gs = cpu_.seg[static_cast<u8>(Seg::gs)];
  e_.load(r10, var(&gs.base));
  e_.load(r11, var(&cpu_.msr.kernel_gs_base));
  e_.store(var(&gs.base), r11);
  e_.store(var(&gs.linear_base), r11);
  e_.store(var(&cpu_.msr.kernel_gs_base), r10);
}

// The last x87 instruction before the block may be left for good without a call.
bool Lowering::last_x87() const {
  for (std::size_t i = index_ + 1u; i < pieces_->size(); i++) {
    const Piece& p = (*pieces_)[i];
    if (p.treatment == Treatment::branch) return true;
    if (p.treatment == Treatment::x87 && p.vector.flags & vector::flag::pointers) return false;
  }
  return true;
}

// FIP and FCS. Where the block goes on to another x87 instruction, calls in between find them by Block::x87.
void Lowering::note_x87(const Piece& p) {
  if (!(p.vector.flags & vector::flag::pointers)) return;
  const u64 rip = block_->key.linear + p.at;
  block_->x87.push_back({index_, rip});
  if (!last_x87()) return;
  e_.mov_imm(r11, rip);
  e_.store(var(&cpu_.x87.fip), r11);
  e_.op(0, false, 0x0FB7, r11, var(&cpu_.seg[static_cast<u8>(Seg::cs)].selector));
  e_.op(0x66, false, 0x89, r11, var(&cpu_.x87.fcs));
}

void Lowering::special(const Piece& p) {
  switch (p.insn.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
      return push(p);
    case ZYDIS_MNEMONIC_POP:
      return pop(p);
    case ZYDIS_MNEMONIC_LEAVE:
      return leave(p);
    case ZYDIS_MNEMONIC_MOV:
      return move_offset(p);
    case ZYDIS_MNEMONIC_PUSHFQ:
      return push_flags(p);
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
      return set_interrupts(p);
    case ZYDIS_MNEMONIC_SWAPGS:
      return swap_gs();
    default:
      return step(p);
  }
}

// -- Leaving the block
void Lowering::poll(u64 target, u16 before) {
  Site& s = site(Site::Kind::poll, nullptr);
  s.rip = target;
  s.before = before;
  e_.mov_imm(rcx, reinterpret_cast<u64>(cpu_.attention));
  e_.load32(rcx, at(rcx));
  e_.put(kJrcxz, 5);
  jump_cold(s);
}

// `uncounted`: instructions of the block that will not retire, given back to the budget.
void Lowering::exit_to(u64 target, u64 from, u16 uncounted, u16 before) {
  target &= mask();
  if (uncounted && context_.counted) {
    e_.load(r10, var(&state_.left));
    e_.lea(r10, at(r10, uncounted));
    e_.store(var(&state_.left), r10);
  }
  // What is given back counts as retired for who reads the budget: the block's count minus `uncounted` is `before`.
  const u16 counted = static_cast<u16>(uncounted ? block_->count : before);
  if (target <= from) poll(target, counted);
  const bool same_page = (target & kPageMask) == context_.page;
  if (same_page || (context_.stable && target >> 63)) {
    Site& s = site(Site::Kind::link, nullptr);
    s.rip = target;
    s.before = counted;
    e_.byte(0xE9);
    s.patch = e_.pc();
    cold_.push_back({e_.size(), &s});
    e_.imm32(0);
    return;
  }
  Site& s = site(Site::Kind::indirect, nullptr);
  s.before = counted;
  s.rip = from;
  const i32 disp = kJumpOffset + static_cast<i32>((target & Views::kJumpMask) * sizeof(JumpSlot));
  Mem slot{.disp = disp};
  slot.gs = true;
  e_.mov_imm(r10, target);
  e_.load(rcx, slot);
  e_.lea(rcx, at(rcx, r10, 0));
  e_.put(kJrcxz, 5);
  jump_cold(s);
  slot.disp += 8;
  e_.jmp_mem(slot);
}

// To the address in R10.
void Lowering::jump_indirect(i8 undo_rsp, const Piece& p) {
  Site& s = site(Site::Kind::indirect, &p);
  s.before = static_cast<u16>(index_ + 1);
  s.undo_rsp = undo_rsp;
  e_.mov_imm(rcx, reinterpret_cast<u64>(cpu_.attention));
  e_.load32(rcx, at(rcx));
  e_.put(kJrcxz, 5);
  jump_cold(s);
  e_.pext(rcx, r10, var(&state_.jump_bits));
  e_.lea(rcx, at(rcx, rcx, 0));
  Mem slot = at(kNone, rcx, 3, kJumpOffset + 8);
  slot.gs = true;
  e_.load(r11, slot);
  slot.disp = kJumpOffset;
  e_.load(rcx, slot);
  e_.lea(rcx, at(rcx, r10, 0));
  e_.put(kJrcxz, 5);
  jump_cold(s);
  e_.jmp_reg(r11);
}

// The return address onto the stack; R10 and RCX have its place when nothing can fail any more.
void Lowering::push_return(const Piece& p) {
  const u8 size = stack_bytes();
  lookup_stack(true, size, p);
  const u64 next = next_of(p);
  const Mem top = at(r10, rcx, 0);
  if (size == 4 || next == static_cast<u64>(static_cast<i64>(static_cast<i32>(next)))) {
    e_.store_imm32(top, static_cast<u32>(next), size == 8);
  } else {
    e_.mov_imm(r11, next);
    e_.store(top, r11);
  }
  move_rsp(-size);
}

void Lowering::branch(const Piece& p) {
  const isa::Insn& i = p.insn;
  const u64 from = block_->key.linear + p.at;
  const u64 target = next_of(p) + i.imm;
  const u16 after = static_cast<u16>(index_ + 1);
  const bool relative = i.op[0].kind == Kind::imm;
  const u8 size = stack_bytes();
  switch (i.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL: {
      const bool call = i.mnemonic == ZYDIS_MNEMONIC_CALL;
      ended_ = true;
      if (relative) {
        if (call) push_return(p);
        return exit_to(target, from, 0, after);
      }
      if (i.op[0].kind == Kind::mem) {
        Site& s = site(Site::Kind::miss, &p);
        s.resume = e_.pc();
        const u8 a = address(p);
        lookup(a, size, false, s);
        e_.op(0, size == 8, 0x8B, r10, at(a, rcx, 0));
        if (call) e_.store(var(&state_.tmp), r10);
      }
      if (call) push_return(p);
      if (i.op[0].kind == Kind::mem) {
        if (call) e_.load(r10, var(&state_.tmp));
      } else if (kHost[i.op[0].reg] != kNone) {
        size == 8 ? e_.mov(r10, kHost[i.op[0].reg]) : e_.mov32(r10, kHost[i.op[0].reg]);
      } else {
        e_.load(r10, gpr(i.op[0].reg));
      }
      return jump_indirect(call ? -static_cast<i8>(size) : 0, p);
    }
    case ZYDIS_MNEMONIC_RET: {
      ended_ = true;
      lookup_stack(false, size, p);
      e_.op(0, size == 8, 0x8B, r10, at(r10, rcx, 0));
      move_rsp(size);
      return jump_indirect(static_cast<i8>(size), p);
    }
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
      i.address_bytes == 8 ? e_.mov(rcx, r15) : e_.mov32(rcx, r15);
      break;
    case ZYDIS_MNEMONIC_LOOP:
      e_.lea(r15, at(r15, -1), i.address_bytes == 8);
      e_.mov(rcx, r15);
      e_.put(kJrcxz, 5);
      e_.byte(0xE9);
      taken_.push_back({e_.size(), target, from, static_cast<u16>(block_->count - after), after});
      e_.imm32(0);
      return;
    default: {
      if (target <= from) {  // a loop goes on: one jump less than the other way round
        e_.put(0x0F, 0x80 | ((p.raw.insn.opcode & 15) ^ 1));
        const u32 over = e_.size();
        e_.imm32(0);
        exit_to(target, from, static_cast<u16>(block_->count - after), after);
        flush_islands();
        e_.patch32(over, e_.size() - (over + 4));
        return;
      }
      e_.put(0x0F, 0x80 | (p.raw.insn.opcode & 15));
      taken_.push_back({e_.size(), target, from, static_cast<u16>(block_->count - after), after});
      e_.imm32(0);
      return;
    }
  }
  // JRCXZ over a jump over a jump.
  e_.put(kJrcxz, 2, 0xEB, 5, 0xE9);
  taken_.push_back({e_.size(), target, from, static_cast<u16>(block_->count - after), after});
  e_.imm32(0);
}

void Lowering::insn(const Piece& p) {
  block_->insns.push_back({e_.size(), p.at});
  islands();
  switch (p.treatment) {
    case Treatment::plain:
    case Treatment::vector:
      if (!plain(p)) step(p);
      break;
    case Treatment::x87:
      if (plain(p))
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
      call_out(p, Site::Kind::semantic);
      break;
    case Treatment::unit:
      call_out(p, Site::Kind::vector);
      break;
    case Treatment::step:
      step(p);
      break;
  }
}

// -- The block
void Lowering::head() {
  if (!context_.counted) return;
  Site& s = site(Site::Kind::limit, nullptr);
  s.rip = block_->key.linear;
  e_.load(rcx, var(&state_.left));
  e_.lea(r10, at(rcx, -static_cast<i32>(block_->count)));
  e_.pext(rcx, r10, var(&state_.left_bit));
  miss(s);
  e_.store(var(&state_.left), r10);
}

void Lowering::finish() {
  flush_islands();
  for (std::size_t i = 0; i < taken_.size(); i++) {
    const Taken t = taken_[i];
    e_.patch32(t.at, e_.size() - (t.at + 4));
    exit_to(t.target, t.from, t.uncounted, t.before);
  }
  taken_.clear();
  Site& stale = site(Site::Kind::stale, nullptr);
  stale.rip = block_->key.linear;
  stale.before = 0;
  block_->stale_stub = e_.pc();
  e_.mov_imm(r11, reinterpret_cast<u64>(&stale));
  e_.jmp(thunks_.call);
  for (std::size_t i = 0; i < cold_.size(); i++) {
    e_.patch32(cold_[i].at, e_.size() - (cold_[i].at + 4));
    e_.mov_imm(r11, reinterpret_cast<u64>(cold_[i].site));
    e_.jmp(thunks_.call);
  }
  cold_.clear();
}

bool Lowering::block(Block& block, const Context& context, const std::vector<Piece>& pieces, u32 island_distance) {
  block_ = &block;
  block.insns.clear();
  island_distance_ = island_distance;
  context_ = context;
  ended_ = failed_ = false;
  index_ = 0;
  pending_.clear();
  cold_.clear();
  taken_.clear();
  block.entry = e_.pc();
  head();
  if (std::any_of(pieces.begin(), pieces.end(), [](const Piece& p) { return p.treatment == Treatment::vector; })) {
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
  block.x87.clear();
  block.uses_x87 =
      std::any_of(pieces.begin(), pieces.end(), [](const Piece& p) { return p.treatment == Treatment::x87; });
  if (block.uses_x87) {
    index_ = 0;
    Site& parked = site(Site::Kind::x87, nullptr);
    parked.rip = block.key.linear;
    parked.resume = e_.pc();
    e_.op(0, false, 0x0FB6, rcx, var(&cpu_.x87.live));
    miss(parked);
    // With an exception unmasked, FOP and FDP would matter: the interpreter's.
    Site& unmasked = site(Site::Kind::step, nullptr);
    unmasked.rip = block.key.linear;
    e_.op(0, false, 0xD9, 7, var(&state_.tmp));  // FNSTCW
    e_.load32(rcx, var(&state_.tmp));
    e_.pext(rcx, rcx, var(&state_.x87_masks));
    e_.lea(rcx, at(rcx, -0x3f));
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
  return !failed_ && !e_.overflowed();
}

}  // namespace trapline::engine::translate
