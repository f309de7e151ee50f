// IN, OUT, INS, OUTS. Intel SDM Vol. 1 chapter 19 (I/O, the permission bitmap), Vol. 2 (the instructions), Vol.
// 3B 17.2.4 (I/O breakpoints).
//
// REP forms move a page's worth at a time and then ask to be run again, so that interrupts come in between. A chunk's
// memory is checked before the device is touched: reads of a data port cannot be taken back.
#include <algorithm>

#include "base/trace.h"
#include "cpu/descriptor.h"
#include "cpu/mmu.h"
#include "cpu/semantics.h"

namespace trapline::cpu::sem {

namespace {

constexpr unsigned kBitmapPointer = 0x66;  // in a 32- or 64-bit TSS: offset of the I/O permission bitmap

enum class Allowed : u8 { yes, no, fault };

// The TSS's bitmap: all `size` bits from `port` on must be clear. Two bytes are always read, so the map ends with a
// byte of ones.
Allowed bitmap_allows(Vcpu& cpu, u16 port, unsigned size) {
  const unsigned type = cpu.tr.type();
  if (!cpu.tr.present() || (type != 9 && type != 11) || cpu.tr.limit < kBitmapPointer + 1) return Allowed::no;
  u16 map;
  if (!system_read(cpu, Gva{cpu.tr.base + kBitmapPointer}, map)) return Allowed::fault;
  const u32 at = map + port / 8u;
  if (at + 1 > cpu.tr.limit) return Allowed::no;
  u16 bits;
  if (!system_read(cpu, Gva{cpu.tr.base + at}, bits)) return Allowed::fault;
  return u32{bits} >> (port & 7) & ((1u << size) - 1) ? Allowed::no : Allowed::yes;
}

// False: cpu.fault set.
bool check_port(Vcpu& cpu, u16 port, unsigned size) {
  if (!cpu.protected_mode()) return true;
  if (cpu.mode != Mode::vm86 && cpu.cpl <= (cpu.sys_flags >> 12 & 3)) return true;
  const Allowed allowed = bitmap_allows(cpu, port, size);
  if (allowed == Allowed::no) static_cast<void>(cpu.raise_gp());
  return allowed == Allowed::yes;
}

// DR6 bits of the I/O breakpoints that watch any of the ports; they exist with CR4.DE only.
u32 io_breakpoints(const Vcpu& cpu, u16 port, unsigned size) {
  const u64 dr7 = cpu.debug.dr7;
  if (!(dr7 & 0xff) || !(cpu.cr4 & cr4::de)) return 0;
  static constexpr u8 kLength[4] = {1, 2, 8, 4};
  u32 hits = 0;
  for (unsigned i = 0; i < 4; i++) {
    if (!(dr7 >> (2 * i) & 3) || (dr7 >> (16 + 4 * i) & 3) != 2) continue;
    const u64 length = kLength[dr7 >> (18 + 4 * i) & 3];
    const u64 first = cpu.debug.dr[i] & ~(length - 1);
    if (port - first < length || first - port < size) hits |= 1u << i;
  }
  return hits;
}

u32 ones(unsigned size) { return size == 4 ? ~0u : (1u << size * 8) - 1; }

u32 port_in(Vcpu& cpu, u16 port, unsigned size) {
  const u32 value = (cpu.bus ? cpu.bus->port_read(cpu, port, size) : ~0u) & ones(size);
  cpu.count.port_reads++;
  TRACE(exits, "in {:#x} size {} -> {:#x}", port, size, value);
  return value;
}

void port_out(Vcpu& cpu, u16 port, unsigned size, u32 value) {
  cpu.count.port_writes++;
  TRACE(exits, "out {:#x} size {} <- {:#x}", port, size, value);
  if (cpu.bus) cpu.bus->port_write(cpu, port, size, value);
}

// -- String forms

struct StringIo {
  Seg seg;
  unsigned size;
  u16 port;
  isa::Gpr pointer;  // RSI or RDI
  u64 address_mask;
  u64 offset;     // of the first item
  u64 items;      // of this part
  u64 remaining;  // count register's value; 1 without REP
  bool rep;
};

// Writes the low part of a register that an address size selects (32 bits zero the upper half).
void set_address_register(Vcpu& cpu, isa::Gpr r, u64 value, u64 mask) {
  cpu.gpr[r] = mask == 0xffff ? (cpu.gpr[r] & ~mask) | (value & mask) : value & mask;
}

StringIo describe(const Vcpu& cpu, const isa::Insn& insn, bool input) {
  StringIo io;
  io.seg = input ? Seg::es : insn.mem.seg;
  io.size = std::min<unsigned>(insn.operand_bytes, 4);
  io.port = static_cast<u16>(cpu.gpr[isa::rdx]);
  io.pointer = input ? isa::rdi : isa::rsi;
  io.address_mask = insn.address_bytes == 8 ? ~u64{0} : insn.address_bytes == 4 ? 0xffffffff : 0xffff;
  io.offset = cpu.gpr[io.pointer] & io.address_mask;
  io.rep = insn.rep || insn.repne;
  io.remaining = io.rep ? cpu.gpr[isa::rcx] & io.address_mask : 1;
  io.items = 1;
  return io;
}

// How many items can go at once: ascending, inside one page, the segment and the address size, with nothing watching
// single items.
void choose_part(Vcpu& cpu, StringIo& io, Gva linear, Access access) {
  const bool watched = (cpu.sys_flags & (flag::df | flag::tf)) || (cpu.debug.dr7 & 0xff) ||
                       ((cpu.need_read | cpu.need_write) & perm::never);
  if (watched || io.remaining < 2) return;
  u64 items = std::min(io.remaining, (kPageSize - linear.page_offset()) / io.size);
  if (const u64 to_wrap = io.address_mask - io.offset; to_wrap < kPageSize)
    items = std::min(items, (to_wrap + 1) / io.size);
  if (items < 2) return;
  Gva ignored;
  if (to_linear(cpu, io.seg, io.offset, static_cast<unsigned>(items * io.size), access, ignored)) io.items = items;
}

Outcome finish_part(Vcpu& cpu, const StringIo& io) {
  const u64 bytes = io.items * io.size;
  const u64 step = cpu.sys_flags & flag::df ? -bytes : bytes;
  set_address_register(cpu, io.pointer, io.offset + step, io.address_mask);
  cpu.debug_hits |= io_breakpoints(cpu, io.port, io.size);
  if (!io.rep) return Outcome::next;
  set_address_register(cpu, isa::rcx, io.remaining - io.items, io.address_mask);
  return io.items < io.remaining ? Outcome::repeat : Outcome::next;
}

Outcome ins(Vcpu& cpu, StringIo io) {
  Gva linear;
  if (!to_linear(cpu, io.seg, io.offset, io.size, Access::write, linear)) return Outcome::fault;
  if (!probe(cpu, io.seg, linear, io.size, Access::write)) return Outcome::fault;
  choose_part(cpu, io, linear, Access::write);
  u8 buffer[kPageSize];
  const unsigned bytes = static_cast<unsigned>(io.items * io.size);
  if (io.items == 1) {
    const u32 value = port_in(cpu, io.port, io.size);
    std::memcpy(buffer, &value, io.size);
  } else {
    std::memset(buffer, 0xff, bytes);
    if (cpu.bus) cpu.bus->port_read_many(cpu, io.port, io.size, static_cast<u32>(io.items), buffer);
    cpu.count.port_reads += io.items;
    TRACE(exits, "ins {:#x} size {} times {}", io.port, io.size, io.items);
  }
  if (!write_slow(cpu, io.seg, linear, buffer, bytes)) return Outcome::fault;
  return finish_part(cpu, io);
}

Outcome outs(Vcpu& cpu, StringIo io) {
  Gva linear;
  if (!to_linear(cpu, io.seg, io.offset, io.size, Access::read, linear)) return Outcome::fault;
  choose_part(cpu, io, linear, Access::read);
  u8 buffer[kPageSize];
  const unsigned bytes = static_cast<unsigned>(io.items * io.size);
  if (!read_slow(cpu, io.seg, linear, buffer, bytes)) return Outcome::fault;
  if (io.items == 1) {
    u32 value = 0;
    std::memcpy(&value, buffer, io.size);
    port_out(cpu, io.port, io.size, value);
  } else {
    if (cpu.bus) cpu.bus->port_write_many(cpu, io.port, io.size, static_cast<u32>(io.items), buffer);
    cpu.count.port_writes += io.items;
    TRACE(exits, "outs {:#x} size {} times {}", io.port, io.size, io.items);
  }
  return finish_part(cpu, io);
}

}  // namespace

Outcome in_out(Vcpu& cpu, const isa::Insn& insn) {
  const bool input = insn.mnemonic == ZYDIS_MNEMONIC_IN;
  const isa::Operand& data = insn.op[input ? 0 : 1];
  const isa::Operand& where = insn.op[input ? 1 : 0];
  const u16 port = where.kind == isa::Operand::Kind::imm ? insn.imm & 0xff : static_cast<u16>(cpu.gpr[isa::rdx]);
  const unsigned size = std::min<unsigned>(data.bytes, 4);
  if (!check_port(cpu, port, size)) return Outcome::fault;
  cpu.debug_hits |= io_breakpoints(cpu, port, size);
  if (!input) {
    port_out(cpu, port, size, static_cast<u32>(cpu.gpr[isa::rax]) & ones(size));
    return Outcome::next;
  }
  return store_operand(cpu, insn, data, port_in(cpu, port, size)) ? Outcome::next : Outcome::fault;
}

Outcome ins_outs(Vcpu& cpu, const isa::Insn& insn) {
  const bool input = insn.mnemonic == ZYDIS_MNEMONIC_INSB || insn.mnemonic == ZYDIS_MNEMONIC_INSW ||
                     insn.mnemonic == ZYDIS_MNEMONIC_INSD;
  const StringIo io = describe(cpu, insn, input);
  if (!check_port(cpu, io.port, io.size)) return Outcome::fault;  // even if the count is 0
  if (io.remaining == 0) return Outcome::next;
  return input ? ins(cpu, io) : outs(cpu, io);
}

}  // namespace trapline::cpu::sem
