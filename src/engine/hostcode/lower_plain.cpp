// Instructions that stay themselves: re-encoded with their registers and their memory operand replaced.
#include "engine/hostcode/lower.h"

#include <algorithm>

#include "engine/vector/op.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;

// What takes the place of an instruction's registers and memory operand, as it comes to be known.
struct Lowering::Rewrite {
  struct Replaced {
    u8 guest;
    bool high8, written;
    u8 host;
  };
  Fields fields;
  bool count_in_rcx = false;           // shifts by CL
  u8 free[3] = {r11}, free_count = 1;  // host registers for guest registers that have none
  Replaced replaced[4] = {};
  unsigned replaced_count = 0;
  ExitStub* store = nullptr;  // of an access that writes
  bool in_r10 = false;        // its place without the displacement
  // Nothing but the instruction itself is between the look-up and what comes next.
  bool stands_alone() const {
    return !count_in_rcx && replaced_count == 0 && (in_r10 || fields.mem.index == rcx || fields.mem.base == rcx);
  }
};

namespace {

// May its operand be elsewhere, without its alignment, and put in place later? Not where it is one access for others, or
// where the host may raise an exception.
bool may_store_elsewhere(const TranslatedInsn& p) {
  if (p.insn.lock || p.insn.mnemonic == ZYDIS_MNEMONIC_XCHG) return false;
  if (p.treatment == Treatment::plain) return p.insn.mem.bytes <= 8;
  // All bytes are put back: not those that a mask leaves to others.
  return p.vector_is(vector::Kind::store) && p.vector.align_mask == 0 && !(p.vector.flags & vector::flag::mxcsr);
}

// Reads its operand and writes it. Without an index register that is no instruction more (it would be taken apart), and
// Intel's processors since Golden Cove hand on what the last one has stored without waiting for memory.
bool updates_memory(const TranslatedInsn& p) {
  if (p.treatment != Treatment::plain || p.insn.lock || p.insn.mnemonic == ZYDIS_MNEMONIC_XCHG) return false;
  return std::any_of(p.insn.op.begin(), p.insn.op.begin() + p.insn.operand_count,
                     [](const isa::Operand& o) { return o.kind == Kind::mem && o.read && o.written; });
}

}  // namespace

// AH, BH, CH or DH: the second byte of `from`.
void Lowering::high_byte(u8 to, u8 from) {
  e_.rorx(to, from, 8);
  e_.movzx8(to, to);
}

// The memory operand; leaves as many registers free as the others need.
void Lowering::rewrite_memory(const TranslatedInsn& p, Rewrite& w) {
  const Decoded& d = p.raw;
  bool write = false;
  for (unsigned i = 0; i < p.insn.operand_count; i++) write |= p.insn.op[i].kind == Kind::mem && p.insn.op[i].written;
  const bool vector = p.treatment == Treatment::vector || p.treatment == Treatment::x87;
  w.fields.mem = memory_access(p, vector ? p.vector.mem_bytes : p.insn.mem.bytes, write);
  if (write) w.store = &sites_.back();
  islands(56);
  Mem& m = w.fields.mem;
  w.in_r10 = m.index != kNone && updates_memory(p);
  if (w.in_r10) {
    w.store->in_r10 = true;
    e_.lea(r10, at(m.base, m.index, 0));
    m = at(r10, m.disp);
    if (!w.count_in_rcx) w.free[w.free_count++] = rcx;
    return;
  }
  unsigned wanted = w.count_in_rcx ? 2 : 0;
  for (u8 i = 0; i < d.insn.operand_count; i++)
    if (is_gpr(d.op[i]) && d.op[i].encoding != ZYDIS_OPERAND_ENCODING_NONE &&
        (kHost[gpr_number(d.op[i].reg.value)] == kNone || is_high8(d.op[i].reg.value)))
      wanted++;
  if (wanted <= 1) return;
  e_.lea(r10, w.fields.mem);
  w.fields.mem = at(r10);
  if (!w.count_in_rcx) w.free[w.free_count++] = rcx;
}

void Lowering::rewrite_lea(const TranslatedInsn& p, Rewrite& w) {
  const isa::MemOperand& m = p.insn.mem;
  const bool wide = m.address_bytes == 8;
  w.fields.memory = true;
  w.free_count = 1;
  if (m.base == isa::kRegRip || (m.base == isa::kNoReg && m.index == isa::kNoReg)) {
    u64 a = static_cast<u64>(m.disp) + (m.base == isa::kRegRip ? next_of(p) : 0);
    if (!wide) a &= 0xffffffff;
    if (m.base == isa::kRegRip && wide)
      linear(rcx, a);
    else
      e_.mov_imm(rcx, a);
    if (m.base == isa::kRegRip && !wide) block_->movable = false;
    w.fields.mem = at(rcx);
    return;
  }
  const u8 base = m.base == isa::kNoReg ? kNone : host_or_load(m.base, rcx);
  const u8 index = m.index == isa::kNoReg ? kNone : host_or_load(m.index, r10);
  w.fields.mem = at(base, index, m.scale_log2, static_cast<i32>(m.disp));
  if (!wide && p.insn.operand_bytes == 8) {  // the address is cut before the operand size is
    e_.lea(rcx, w.fields.mem, false);
    w.fields.mem = at(rcx);
  }
}

// The host register for one that has none of its own, loaded at its first use. False: none is free.
bool Lowering::stand_in(Rewrite& w, u8 guest, bool high8, bool written, u8* host) {
  Rewrite::Replaced* const end = w.replaced + w.replaced_count;
  Rewrite::Replaced* known =
      std::find_if(w.replaced, end, [&](const Rewrite::Replaced& r) { return r.guest == guest && r.high8 == high8; });
  if (known == end) {
    if (w.replaced_count == 4 || w.free_count == 0) return false;
    const u8 free = w.free[--w.free_count];
    *known = {guest, high8, false, free};
    w.replaced_count++;
    if (high8)
      high_byte(free, kHost[guest]);
    else
      e_.load(free, gpr(guest));
  }
  known->written |= written;
  *host = known->host;
  return true;
}

bool Lowering::rewrite_registers(const Decoded& d, Rewrite& w) {
  Fields& f = w.fields;
  for (u8 i = 0; i < d.insn.operand_count; i++) {
    const ZydisDecodedOperand& op = d.op[i];
    if (!is_gpr(op)) continue;
    u8* field = op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG  ? &f.reg
                : op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ? &f.rm
                : op.encoding == ZYDIS_OPERAND_ENCODING_NDSNDD   ? &f.vvvv
                : op.encoding == ZYDIS_OPERAND_ENCODING_OPCODE   ? &f.opcode_reg
                                                                 : nullptr;
    if (!field) continue;
    const u8 guest = gpr_number(op.reg.value);
    const bool high8 = is_high8(op.reg.value);
    if (kHost[guest] != kNone && !high8) {
      *field = kHost[guest];
      if (op.size == 8 && *field >= rsp && *field <= rdi) f.force_rex = true;
    } else if (!stand_in(w, guest, high8, op.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE, field)) {
      return false;
    }
  }
  return true;
}

// Registers without one of the host's go back to where they live.
void Lowering::write_back(const Rewrite& w) {
  for (unsigned i = 0; i < w.replaced_count; i++) {
    const Rewrite::Replaced& r = w.replaced[i];
    if (!r.written) continue;
    if (r.high8) {
      const u8 whole = kHost[r.guest];
      e_.rorx(whole, whole, 8);
      e_.mov8(whole, r.host);
      e_.rorx(whole, whole, 56);
    } else {
      e_.store(gpr(r.guest), r.host);
    }
  }
}

// An instruction that stays itself. False: it needs more registers than there are.
bool Lowering::plain(const TranslatedInsn& p) {
  const Decoded& d = p.raw;
  Rewrite w{.fields = guest_fields(d)};
  const bool lea = p.insn.mnemonic == ZYDIS_MNEMONIC_LEA;
  for (u8 i = 0; i < d.insn.operand_count; i++)
    if (is_gpr(d.op[i]) && d.op[i].encoding == ZYDIS_OPERAND_ENCODING_NONE && gpr_number(d.op[i].reg.value) == isa::rcx)
      w.count_in_rcx = true;
  if (w.fields.memory && !lea) {
    rewrite_memory(p, w);
  } else {
    w.free[w.free_count++] = r10;
    if (!w.count_in_rcx) w.free[w.free_count++] = rcx;
  }
  if (lea) rewrite_lea(p, w);
  if (!rewrite_registers(d, w)) return false;
  if (w.count_in_rcx) e_.mov(rcx, kHost[isa::rcx]);
  const unsigned opcode = d.insn.opcode;
  if (d.insn.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 && d.insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
      opcode >= 0x40 && opcode <= 0x4F) {
    opcode < 0x48 ? e_.inc_sized(p.insn.operand_bytes, w.fields.opcode_reg)
                  : e_.dec_sized(p.insn.operand_bytes, w.fields.opcode_reg);
  } else {
    const u64 start = e_.pc();
    reencode(d, p.insn.bytes.data(), w.fields, e_);
    if (w.store && w.stands_alone() && may_store_elsewhere(p)) {
      w.store->patch = start;
      w.store->copy_bytes = static_cast<u8>(e_.pc() - start);
    }
  }
  if (p.treatment == Treatment::vector && w.count_in_rcx) e_.mov(kHost[isa::rcx], rcx);  // its result
  write_back(w);
  return true;
}

bool Lowering::is_mxcsr_load(const TranslatedInsn& p) {
  return p.insn.mnemonic == ZYDIS_MNEMONIC_LDMXCSR || p.insn.mnemonic == ZYDIS_MNEMONIC_VLDMXCSR;
}

// Of what a guest may set: hosts may have more bits (AMD's MM, bit 17), and where they have not, refuse the others
// themselves. The semantic raises the #GP.
void Lowering::load_mxcsr(const TranslatedInsn& p) {
  static const bool host_has_more = cpu::HostCpu::real().mxcsr_mask >> 16;
  const Mem m = memory_access(p, 4, false);
  if (!host_has_more) return e_.ldmxcsr(m);
  e_.load32(r11, m);
  e_.store32(var(&state_.tmp), r11);
  islands(56);
  e_.mov_imm(rcx, 16);
  e_.shrx(rcx, r11, rcx);
  const auto allowed = e_.jrcxz();
  jump_cold(site(ExitStub::Kind::step, &p));
  e_.bind(allowed);
  e_.ldmxcsr(var(&state_.tmp));
}

}  // namespace trapline::engine::hostcode
