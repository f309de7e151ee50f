#include "engine/translate/sharing.h"

#include <algorithm>
#include <cstdlib>

#include "base/invariant.h"
#include "engine/hostcode/lower.h"

namespace trapline::engine::translate {

using namespace hostcode;

using Kind = isa::Operand::Kind;
using cpu::Seg;

namespace {

constexpr i64 kWidest = SharedLookup::kSpan;

// A register's value: what some register held at some point, plus a constant.
struct Value {
  u32 root = 0;
  i64 offset = 0;
};

struct Group {
  u32 base = 0, index = 0;  // roots; 0: no index
  i64 index_offset = 0;
  u8 scale = 0;
  i64 from = 0, to = 0;  // bytes, counted from `base`
  bool write = false;
  std::vector<std::pair<SharedLookup*, i64>> members;  // and where each starts
};

class Sharing {
 public:
  explicit Sharing(std::vector<TranslatedInsn>& pieces) : pieces_{pieces} { forget(); }
  void run() {
    for (TranslatedInsn& p : pieces_) piece(p);
    assign();
  }

 private:
  // Nothing is known any more.
  void forget() {
    for (u8 r = 0; r < 16; r++) fresh(r);
    open_.clear();
  }
  void fresh(u8 reg) { value_[reg] = {++roots_, 0}; }
  void move(u8 reg, i64 by) { value_[reg].offset += by; }

  void access(SharedLookup& share, u8 base, u8 index, u8 scale, i64 disp, unsigned bytes, bool write) {
    const Value b = value_[base];
    const Value i = index == isa::kNoReg ? Value{} : value_[index];
    const i64 from = b.offset + disp, to = from + static_cast<i64>(bytes);
    for (std::size_t k : open_) {
      Group& g = groups_[k];
      if (g.base != b.root || g.index != i.root || g.index_offset != i.offset || g.scale != scale) continue;
      const i64 low = std::min(g.from, from), high = std::max(g.to, to);
      if (high - low > kWidest) continue;
      g.from = low, g.to = high, g.write |= write;
      g.members.emplace_back(&share, from);
      return;
    }
    open_.push_back(groups_.size());
    groups_.push_back({b.root, i.root, i.offset, scale, from, to, write, {{&share, from}}});
  }

  void explicit_access(TranslatedInsn& p, unsigned bytes) {
    const isa::MemOperand& m = p.insn.mem;
    if (m.address_bytes != 8 || m.seg == Seg::fs || m.seg == Seg::gs || m.base >= isa::kRegRip) return;
    if (m.disp != static_cast<i32>(m.disp) || std::abs(m.disp) > 1 << 30 || bytes == 0) return;
    bool write = false;
    for (unsigned i = 0; i < p.insn.operand_count; i++) write |= p.insn.op[i].kind == Kind::mem && p.insn.op[i].written;
    access(p.memory, m.base, m.index, m.scale_log2, m.disp, bytes, write);
  }
  bool has_memory(const TranslatedInsn& p) const {
    for (unsigned i = 0; i < p.insn.operand_count; i++)
      if (p.insn.op[i].kind == Kind::mem) return p.insn.mnemonic != ZYDIS_MNEMONIC_LEA;
    return false;
  }

  void push(TranslatedInsn& p, i64 bytes = 8) {
    access(p.stack, isa::rsp, isa::kNoReg, 0, -bytes, 8, true);
    move(isa::rsp, -bytes);
  }
  void pop(TranslatedInsn& p) {
    access(p.stack, isa::rsp, isa::kNoReg, 0, 0, 8, false);
    move(isa::rsp, 8);
  }

  void enter(TranslatedInsn& p) {
    const i64 pushed = (p.insn.imm2 & 31) == 1 ? 16 : 8, top = -pushed - static_cast<i64>(p.insn.imm & 0xffff);
    access(p.memory, isa::rsp, isa::kNoReg, 0, top, 1, true);  // first, as in Lowering::enter
    access(p.stack, isa::rsp, isa::kNoReg, 0, -pushed, static_cast<unsigned>(pushed), true);
    value_[isa::rbp] = value_[isa::rsp];
    move(isa::rbp, -8);
    move(isa::rsp, top);
  }

  // What an instruction that stays itself does to the registers.
  void written(const TranslatedInsn& p) {
    const isa::Insn& i = p.insn;
    const bool to_register = i.operand_count >= 2 && i.op[0].kind == Kind::gpr && i.operand_bytes == 8;
    const u8 to = i.op[0].reg;
    if (to_register && i.mnemonic == ZYDIS_MNEMONIC_MOV && i.op[1].kind == Kind::gpr) {
      value_[to] = value_[i.op[1].reg];
      return;
    }
    if (to_register && i.op[1].kind == Kind::imm && i.mnemonic == ZYDIS_MNEMONIC_ADD)
      return move(to, static_cast<i64>(i.imm));
    if (to_register && i.op[1].kind == Kind::imm && i.mnemonic == ZYDIS_MNEMONIC_SUB)
      return move(to, static_cast<i64>(0 - i.imm));
    if (to_register && i.mnemonic == ZYDIS_MNEMONIC_LEA && i.mem.base < isa::kRegRip && i.mem.index == isa::kNoReg &&
        i.mem.address_bytes == 8) {
      const Value v = value_[i.mem.base];
      value_[to] = {v.root, v.offset + i.mem.disp};
      return;
    }
    for (u8 n = 0; n < p.raw.insn.operand_count; n++) {
      const ZydisDecodedOperand& op = p.raw.op[n];
      if (emit::is_gpr(op) && op.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) fresh(emit::gpr_number(op.reg.value));
    }
  }

  static bool is_loop(ZydisMnemonic m) {
    return m == ZYDIS_MNEMONIC_LOOP || m == ZYDIS_MNEMONIC_LOOPE || m == ZYDIS_MNEMONIC_LOOPNE;
  }

  void special(TranslatedInsn& p) {
    if (p.insn.operand_bytes == 2) return forget();
    switch (p.insn.mnemonic) {
      case ZYDIS_MNEMONIC_PUSH:
        if (p.insn.op[0].kind == Kind::mem) explicit_access(p, 8);
        return push(p);
      case ZYDIS_MNEMONIC_PUSHFQ:
        return push(p);
      case ZYDIS_MNEMONIC_POPFQ:
        return pop(p);
      case ZYDIS_MNEMONIC_ENTER:
        return enter(p);
      case ZYDIS_MNEMONIC_POP:
        pop(p);
        if (p.insn.op[0].kind == Kind::mem) return explicit_access(p, 8);
        return fresh(p.insn.op[0].reg);
      case ZYDIS_MNEMONIC_LEAVE:
        access(p.stack, isa::rbp, isa::kNoReg, 0, 0, 8, false);
        value_[isa::rsp] = value_[isa::rbp];
        move(isa::rsp, 8);
        return fresh(isa::rbp);
      case ZYDIS_MNEMONIC_CLI:
      case ZYDIS_MNEMONIC_STI:
      case ZYDIS_MNEMONIC_SWAPGS:
        return;
      default:
        return forget();
    }
  }

  void piece(TranslatedInsn& p) {
    switch (p.treatment) {
      case Treatment::plain:
        if (has_memory(p)) explicit_access(p, p.insn.mem.bytes);
        return written(p);
      case Treatment::vector:
      case Treatment::x87:
        if (p.treatment == Treatment::vector && p.has_elements()) return forget();
        if (has_memory(p)) explicit_access(p, p.vector.mem_bytes);
        return written(p);
      case Treatment::nothing:
        return;
      case Treatment::special:
        return special(p);
      case Treatment::branch:
        if (has_memory(p)) explicit_access(p, 8);
        if (p.insn.mnemonic == ZYDIS_MNEMONIC_CALL) push(p);
        if (p.insn.mnemonic == ZYDIS_MNEMONIC_RET) pop(p);
        if (is_loop(p.insn.mnemonic)) fresh(isa::rcx);
        return;
      default:  // calls may end TLB entries
        return forget();
    }
  }

  void assign() {
    u8 slot = 0;
    for (const Group& g : groups_) {
      if (g.members.size() < 2 || slot == SharedLookup::kSlots) continue;
      // A miss touches the tables no further before its own address.
      INVARIANT(g.from < g.to && g.to - g.from <= SharedLookup::kSpan, "a look-up of {} to {} is shared", g.from, g.to);
      for (const auto& [share, from] : g.members) share->slot = slot;
      SharedLookup& first = *g.members.front().first;
      first.leads = true;
      first.write = g.write;
      first.lo = static_cast<i32>(g.from - g.members.front().second);
      first.span = static_cast<u16>(g.to - g.from);
      slot++;
    }
  }

  std::vector<TranslatedInsn>& pieces_;
  Value value_[16];
  u32 roots_ = 0;
  std::vector<Group> groups_;
  std::vector<std::size_t> open_;
};

}  // namespace

void share_lookups(const Context& context, std::vector<TranslatedInsn>& pieces) {
  if (context.bits64) Sharing{pieces}.run();
}

}  // namespace trapline::engine::translate
