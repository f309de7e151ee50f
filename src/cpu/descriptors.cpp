// Descriptor-table registers, the machine status word, and questions about descriptors. Intel SDM Vol. 2; UMIP: Vol.
// 3A 2.5.
#include "cpu/descriptor.h"
#include "cpu/far_transfer.h"
#include "cpu/semantics.h"

namespace trapline::cpu {

namespace {

bool umip_forbids(const Vcpu& cpu) { return cpu.cpl > 0 && (cpu.cr4 & cr4::umip); }

// SGDT, SIDT: limit, then the base: 8 bytes in 64-bit mode, elsewhere 4 whatever the operand size.
Outcome store_table(Vcpu& cpu, const isa::Insn& insn, const TableRegister& table) {
  if (insn.op[0].kind != isa::Operand::Kind::mem) return cpu.raise_ud();
  if (umip_forbids(cpu)) return cpu.raise_gp(0);
  const u64 address = effective_address(cpu, insn.mem, next_rip(cpu, insn));
  const Seg seg = insn.mem.seg;
  const u64 base = part_address(insn.mem, address, 2);
  bool done = write(cpu, seg, address, table.limit);
  if (cpu.in_long64())
    done = done && write(cpu, seg, base, table.base);
  else
    done = done && write(cpu, seg, base, static_cast<u32>(table.base));
  return done ? Outcome::next : Outcome::fault;
}

Outcome load_table(Vcpu& cpu, const isa::Insn& insn, TableRegister& table) {
  if (insn.op[0].kind != isa::Operand::Kind::mem) return cpu.raise_ud();
  if (cpu.cpl != 0) return cpu.raise_gp(0);
  const u64 address = effective_address(cpu, insn.mem, next_rip(cpu, insn));
  const u64 base_at = part_address(insn.mem, address, 2);
  TableRegister loaded;
  if (!read(cpu, insn.mem.seg, address, loaded.limit)) return Outcome::fault;
  if (cpu.in_long64()) {
    if (!read(cpu, insn.mem.seg, base_at, loaded.base)) return Outcome::fault;
    if (!canonical(loaded.base)) return cpu.raise_gp(0);
  } else {
    u32 base;
    if (!read(cpu, insn.mem.seg, base_at, base)) return Outcome::fault;
    loaded.base = insn.operand_bytes == 2 ? base & 0xffffff : base;
  }
  table = loaded;
  return Outcome::next;
}

// SLDT, STR, SMSW: 16 bits to memory; registers as wide as the operand.
Outcome store_word(Vcpu& cpu, const isa::Insn& insn, u64 value) {
  isa::Operand destination = insn.op[0];
  if (destination.kind == isa::Operand::Kind::mem) destination.bytes = 2;
  return store_operand(cpu, insn, destination, value) ? Outcome::next : Outcome::fault;
}

bool load_word(Vcpu& cpu, const isa::Insn& insn, const isa::Operand& op, u16& value) {
  isa::Operand source = op;
  source.bytes = 2;
  u64 wide;
  if (!load_operand(cpu, insn, source, &wide)) return false;
  value = static_cast<u16>(wide);
  return true;
}

Outcome store_selector(Vcpu& cpu, const isa::Insn& insn, u16 selector) {
  if (real_segments(cpu)) return cpu.raise_ud();
  if (umip_forbids(cpu)) return cpu.raise_gp(0);
  return store_word(cpu, insn, selector);
}

Outcome smsw(Vcpu& cpu, const isa::Insn& insn) {
  if (umip_forbids(cpu)) return cpu.raise_gp(0);
  return store_word(cpu, insn, cpu.cr0);
}

// Bits 3:0 only, and PE can be set but not cleared.
Outcome lmsw(Vcpu& cpu, const isa::Insn& insn) {
  if (cpu.cpl != 0) return cpu.raise_gp(0);
  u16 word;
  if (!load_word(cpu, insn, insn.op[0], word)) return Outcome::fault;
  const u64 value = (cpu.cr0 & ~u64{cr0::mp | cr0::em | cr0::ts}) | (word & 15);
  return write_cr0(cpu, value) ? Outcome::next : Outcome::fault;
}

Outcome lldt(Vcpu& cpu, const isa::Insn& insn) {
  if (real_segments(cpu)) return cpu.raise_ud();
  if (cpu.cpl != 0) return cpu.raise_gp(0);
  u16 selector;
  if (!load_word(cpu, insn, insn.op[0], selector)) return Outcome::fault;
  return check_ldt(cpu, selector, Vector::gp, Vector::np, cpu.ldtr) ? Outcome::next : Outcome::fault;
}

Outcome ltr(Vcpu& cpu, const isa::Insn& insn) {
  if (real_segments(cpu)) return cpu.raise_ud();
  if (cpu.cpl != 0) return cpu.raise_gp(0);
  u16 selector;
  if (!load_word(cpu, insn, insn.op[0], selector)) return Outcome::fault;
  const u16 error = selector_error(selector);
  if (null_selector(selector)) return cpu.raise_gp(0);
  if (selector & 4) return cpu.raise_gp(error);
  Descriptor d;
  if (!fetch_descriptor(cpu, selector, Vector::gp, d)) return Outcome::fault;
  const bool available = d.type() == system_type::tss32 || (d.type() == system_type::tss16 && !cpu.long_mode_active());
  if (!d.system() || !available) return cpu.raise_gp(error);
  if (!d.present()) return cpu.raise(Vector::np, error);
  if (!fetch_upper_half(cpu, selector, Vector::gp, d)) return Outcome::fault;
  if (!canonical(d.base())) return cpu.raise_gp(error);
  if (!mark_busy(cpu, d, true)) return Outcome::fault;
  cpu.tr = segment_from(selector, d);
  return Outcome::next;
}

void set_zero_flag(Vcpu& cpu, bool zero) { cpu.arith = static_cast<u16>((cpu.arith & ~0x4000) | (zero ? 0x4000 : 0)); }

enum class Query : u8 { lar, lsl, verr, verw };

// Which system descriptors LAR and LSL know (Vol. 2A, tables in LAR and LSL).
bool known_system_type(const Vcpu& cpu, Query query, u8 type) {
  using namespace system_type;
  switch (type) {
    case ldt:
    case tss32:
    case tss32_busy:
      return true;
    case tss16:
    case tss16_busy:
      return !cpu.long_mode_active();
    case call32:
      return query == Query::lar;
    case call16:
    case task_gate:
      return query == Query::lar && !cpu.long_mode_active();
    default:
      return false;
  }
}

bool answers(const Vcpu& cpu, Query query, u16 selector, const Descriptor& d) {
  if (d.system()) {
    if (query == Query::verr || query == Query::verw || !known_system_type(cpu, query, d.type())) return false;
  } else if ((query == Query::verr && d.code() && !d.readable_code()) || (query == Query::verw && !d.writable_data())) {
    return false;
  }
  return d.conforming_code() || (d.dpl() >= cpu.cpl && d.dpl() >= rpl_of(selector));
}

// True with `d` filled: the descriptor exists, has the right kind and may be seen. *faulted: the table could not be
// read.
bool visible_descriptor(Vcpu& cpu, Query query, u16 selector, Descriptor& d, bool* faulted) {
  Gva address;
  u64 raw;
  *faulted = false;
  if (null_selector(selector) || !locate_descriptor(cpu, selector, 8, address)) return false;
  if (!system_read(cpu, address, raw)) {
    *faulted = true;
    return false;
  }
  d.low = static_cast<u32>(raw);
  d.high = static_cast<u32>(raw >> 32);
  return answers(cpu, query, selector, d);
}

Outcome query_descriptor(Vcpu& cpu, const isa::Insn& insn, Query query) {
  if (real_segments(cpu)) return cpu.raise_ud();
  const bool verify = query == Query::verr || query == Query::verw;
  u16 selector;
  if (!load_word(cpu, insn, insn.op[verify ? 0 : 1], selector)) return Outcome::fault;
  Descriptor d;
  bool faulted;
  const bool visible = visible_descriptor(cpu, query, selector, d, &faulted);
  if (faulted) return Outcome::fault;
  if (visible && !verify) {
    // LAR: bits 19:16 are undefined by the manual; processors show the limit's.
    const u64 value = query == Query::lsl ? d.limit() : d.high & 0xffff00;
    if (!store_operand(cpu, insn, insn.op[0], value)) return Outcome::fault;
  }
  set_zero_flag(cpu, visible);
  return Outcome::next;
}

Outcome arpl(Vcpu& cpu, const isa::Insn& insn) {
  if (real_segments(cpu) || cpu.in_long64()) return cpu.raise_ud();
  u16 destination, source;
  if (!load_word(cpu, insn, insn.op[0], destination) || !load_word(cpu, insn, insn.op[1], source))
    return Outcome::fault;
  const bool raised = rpl_of(destination) < rpl_of(source);
  isa::Operand op = insn.op[0];
  op.bytes = 2;
  if (raised && !store_operand(cpu, insn, op, (destination & ~3u) | rpl_of(source))) return Outcome::fault;
  set_zero_flag(cpu, raised);
  return Outcome::next;
}

}  // namespace

namespace sem {

Outcome descriptor_table(Vcpu& cpu, const isa::Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_SGDT:
      return store_table(cpu, insn, cpu.gdtr);
    case ZYDIS_MNEMONIC_SIDT:
      return store_table(cpu, insn, cpu.idtr);
    case ZYDIS_MNEMONIC_LGDT:
      return load_table(cpu, insn, cpu.gdtr);
    case ZYDIS_MNEMONIC_LIDT:
      return load_table(cpu, insn, cpu.idtr);
    case ZYDIS_MNEMONIC_SLDT:
      return store_selector(cpu, insn, cpu.ldtr.selector);
    case ZYDIS_MNEMONIC_STR:
      return store_selector(cpu, insn, cpu.tr.selector);
    case ZYDIS_MNEMONIC_LLDT:
      return lldt(cpu, insn);
    case ZYDIS_MNEMONIC_LTR:
      return ltr(cpu, insn);
    case ZYDIS_MNEMONIC_SMSW:
      return smsw(cpu, insn);
    case ZYDIS_MNEMONIC_LMSW:
      return lmsw(cpu, insn);
    default:
      return descriptor_query(cpu, insn);
  }
}

Outcome descriptor_query(Vcpu& cpu, const isa::Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_LAR:
      return query_descriptor(cpu, insn, Query::lar);
    case ZYDIS_MNEMONIC_LSL:
      return query_descriptor(cpu, insn, Query::lsl);
    case ZYDIS_MNEMONIC_VERR:
      return query_descriptor(cpu, insn, Query::verr);
    case ZYDIS_MNEMONIC_VERW:
      return query_descriptor(cpu, insn, Query::verw);
    case ZYDIS_MNEMONIC_ARPL:
      return arpl(cpu, insn);
    default:
      return cpu.raise_ud();
  }
}

}  // namespace sem
}  // namespace trapline::cpu
