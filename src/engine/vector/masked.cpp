// Memory operands of which only some elements are accessed. Elements that are masked off cannot fault (SDM Vol.
// 1 15.6.3). When the whole operand lies in one resident page the host's own masked access works on it; else each
// active element goes through the MMU.
#include <algorithm>
#include <cstring>

#include "engine/vector/run.h"

namespace trapline::engine::vector {

using cpu::Access;
using cpu::Outcome;
using cpu::Vcpu;

namespace {

u64 low_bits(unsigned n) { return n >= 64 ? ~u64{0} : (u64{1} << n) - 1; }

u64 sign_bits(const u8* vector, unsigned element_bytes, unsigned count) {
  u64 bits = 0;
  for (unsigned i = 0; i < count; i++) bits |= static_cast<u64>(vector[(i + 1) * element_bytes - 1] >> 7) << i;
  return bits;
}

// Bit j: element j of the memory operand is accessed.
u64 active_elements(const Vcpu& cpu, const VectorOp& op) {
  switch (static_cast<Kind>(op.kind)) {
    case Kind::vmask_load:
    case Kind::vmask_store:
      return sign_bits(cpu.vec.zmm[op.mask_reg], op.element_bytes, op.count);
    default:
      break;
  }
  u64 mask = cpu.vec.k[op.mask_reg] & low_bits(op.count);
  const unsigned elements = op.mem_bytes / op.element_bytes;
  if (op.kind == static_cast<u8>(Kind::compress) || op.kind == static_cast<u8>(Kind::expand))
    return low_bits(static_cast<unsigned>(__builtin_popcountll(mask)));
  // Broadcasts: an element is read for every lane that it is copied to.
  for (unsigned n = op.count; n > elements; n /= 2) mask |= mask >> n / 2;
  return mask & low_bits(elements);
}

// An operand is one access: its elements lie behind its first byte, past 4 GiB even if addresses have 32 bits. `wrap`:
// those that go byte by byte, whose every address is cut.
struct Target {
  Vcpu& cpu;
  isa::Seg seg;
  u64 offset;
  u64 wrap = ~u64{0};

  bool linear(unsigned at, unsigned size, Access access, Gva& out) const {
    return to_linear(cpu, seg, (offset + at) & wrap, size, access, out);
  }
  bool load(unsigned at, void* out, unsigned size) const {
    Gva l;
    return linear(at, size, Access::read, l) && read_slow(cpu, seg, l, out, size);
  }
  bool probe_write(unsigned at, unsigned size) const {
    Gva l;
    return linear(at, size, Access::write, l) && probe(cpu, seg, l, size, Access::write);
  }
  bool store(unsigned at, const void* in, unsigned size) const {
    Gva l;
    return linear(at, size, Access::write, l) && write_slow(cpu, seg, l, in, size);
  }
};

u64 address_mask(u8 address_bytes) { return address_bytes == 8 ? ~u64{0} : address_bytes == 4 ? 0xffffffff : 0xffff; }

Outcome masked_load(const Target& at, const VectorOp& op) {
  alignas(64) u8 scratch[64] = {};
  const u64 active = active_elements(at.cpu, op);
  const unsigned n = op.element_bytes;
  for (u64 left = active; left; left &= left - 1) {
    const unsigned j = static_cast<unsigned>(__builtin_ctzll(left)) * n;
    if (!at.load(j, scratch + j, n)) return Outcome::fault;
  }
  return run(at.cpu, op, scratch);
}

Outcome store_active(const Target& at, const VectorOp& op, u64 active, const u8* bytes) {
  const unsigned n = op.element_bytes;
  for (u64 left = active; left; left &= left - 1) {
    const unsigned j = static_cast<unsigned>(__builtin_ctzll(left)) * n;
    if (!at.store(j, bytes + j, n)) return Outcome::fault;
  }
  return Outcome::next;
}

bool probe_active(const Target& at, const VectorOp& op, u64 active) {
  for (u64 left = active; left; left &= left - 1)
    if (!at.probe_write(static_cast<unsigned>(__builtin_ctzll(left)) * op.element_bytes, op.element_bytes))
      return false;
  return true;
}

// The instruction itself changes nothing but scratch and MXCSR. Intel: its #XM comes before the store's faults; AMD:
// behind.
Outcome masked_store(const Target& at, const VectorOp& op) {
  const u64 active = active_elements(at.cpu, op);
  const u32 mxcsr = at.cpu.vec.mxcsr;
  const bool whole = op.flags & flag::no_suppression;
  const auto writable = [&] { return (!whole || at.probe_write(0, op.mem_bytes)) && probe_active(at, op, active); };
  if (amd(at.cpu) && !writable()) return Outcome::fault;
  alignas(64) u8 scratch[64] = {};
  const Outcome o = run(at.cpu, op, scratch);
  if (o != Outcome::next) return o;
  if (writable() && store_active(at, op, active, scratch) == Outcome::next) return Outcome::next;
  at.cpu.vec.mxcsr = mxcsr;
  return Outcome::fault;
}

// MASKMOV: which bytes are active shows where two different backgrounds end up equal. Faults of those that are not are
// left to the implementation (SDM Vol. 2B, APM Vol. 4 MASKMOVDQU): processors check the whole by halves of 8 bytes,
// whatever the mask, Intel's the upper one first.
Outcome mask_move(const Target& at, const VectorOp& op) {
  const unsigned halves = op.mem_bytes / 8;
  for (unsigned i = 0; i < halves; i++)
    if (!at.probe_write((amd(at.cpu) ? i : halves - 1 - i) * 8, 8)) return Outcome::fault;
  alignas(64) u8 zeros[64] = {}, ones[64];
  std::memset(ones, 0xff, sizeof ones);
  Outcome o = run(at.cpu, op, zeros);
  if (o == Outcome::next) o = run(at.cpu, op, ones);
  if (o != Outcome::next) return o;
  u64 active = 0;
  for (unsigned i = 0; i < op.mem_bytes; i++) active |= static_cast<u64>(zeros[i] == ones[i]) << i;
  return store_active(at, op, active, zeros);
}

// To how many bytes an operand must be aligned while alignment is checked (MASKMOVDQU's: to 8). Intel: operands of up
// to 8 bytes as a whole, never elements. AMD: by the element, or the whole where no fault is suppressed.
unsigned checked_bytes(const Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  const Kind kind = static_cast<Kind>(op.kind);
  if (kind == Kind::mask_move) return 8;
  if (amd(cpu)) {
    if (kind == Kind::vmask_load || kind == Kind::vmask_store) return 1;
    if (op.flags & flag::no_suppression) return std::min<unsigned>(op.mem_bytes, 16);
    return active_elements(cpu, op) != 0 ? op.element_bytes : 1;
  }
  return op.mem_bytes <= 8 && !is_half_conversion(insn) && active_elements(cpu, op) != 0 ? op.mem_bytes : 1;
}

bool writes(Kind k) {
  return k == Kind::masked_store || k == Kind::vmask_store || k == Kind::compress || k == Kind::mask_move;
}

i64 index_at(const u8* vector, unsigned i, unsigned bytes) {
  if (bytes == 4) {
    i32 v;
    std::memcpy(&v, vector + i * 4, 4);
    return v;
  }
  i64 v;
  std::memcpy(&v, vector + i * 8, 8);
  return v;
}

// The vector length of a gather: that of the wider of data and indices.
unsigned vector_bytes(const VectorOp& op) { return op.count * std::max(op.element_bytes, op.index_bytes); }

// The masks of gathers and scatters: an opmask bit, or the sign of a vector element; cleared as elements complete.
struct ElementMask {
  Vcpu& cpu;
  const VectorOp& op;
  bool test(unsigned i) const {
    if (op.flags & flag::evex) return cpu.vec.k[op.mask_reg] >> i & 1;
    return cpu.vec.zmm[op.mask_reg][(i + 1) * op.element_bytes - 1] & 0x80;
  }
  void clear(unsigned i) const {
    if (op.flags & flag::evex)
      cpu.vec.k[op.mask_reg] &= ~(u64{1} << i);
    else
      std::memset(cpu.vec.zmm[op.mask_reg] + i * op.element_bytes, 0, op.element_bytes);
  }
  // VEX on Intel: before the first element the mask becomes all ones or zeros per element, and zero beyond (the
  // manual's pseudocode). AMD's processors leave it, and clear the elements that they have passed.
  void normalize() const {
    if ((op.flags & flag::evex) || amd(cpu)) return;
    u8* mask = cpu.vec.zmm[op.mask_reg];
    const unsigned n = op.element_bytes, used = vector_bytes(op);
    for (unsigned i = 0; i < used / n; i++) std::memset(mask + i * n, test(i) ? 0xff : 0, n);
    std::memset(mask + used, 0, 64 - used);
  }
  void clear_all() const {
    if (op.flags & flag::evex)
      cpu.vec.k[op.mask_reg] = 0;
    else
      std::memset(cpu.vec.zmm[op.mask_reg], 0, 64);
  }
};

u64 element_offset(const isa::Insn& insn, const VectorOp& op, u64 base, const u8* indices, unsigned i) {
  const u64 index = static_cast<u64>(index_at(indices, i, op.index_bytes)) << insn.mem.scale_log2;
  return (base + index) & address_mask(insn.mem.address_bytes);
}

// A fault after some elements are done: their traps come first, and the rest is done when the instruction runs again
// (SDM Vol. 2B VGATHERDPS).
Outcome stopped_at_element(const Vcpu& cpu, bool any_done) {
  const bool trap = (cpu.sys_flags & cpu::flag::tf) || cpu.debug_hits;
  return any_done && trap ? Outcome::repeat : Outcome::fault;
}

}  // namespace

Outcome execute_masked(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  const Kind kind = static_cast<Kind>(op.kind);
  const bool write = writes(kind);
  Target at{cpu, insn.mem.seg, 0};
  if (kind == Kind::mask_move) {  // the address is implied: rDI
    at.wrap = address_mask(insn.address_bytes);
    if (at.seg == isa::Seg::none) at.seg = isa::Seg::ds;
    at.offset = cpu.gpr[isa::rdi] & at.wrap;
  } else {
    at.offset = effective(cpu, insn);
  }
  const cpu::Segment& s = cpu.segment(at.seg);
  const Gva linear{(s.linear_base + at.offset) & cpu.linear_mask};
  const bool misaligned = linear.raw & op.align_mask;
  if (misaligned && active_elements(cpu, op) != 0) return cpu.raise_gp();  // with none active the host does not mind
  if (!misaligned && (write ? s.flat_write : s.flat_read))
    if (u8* host = tlb_lookup(cpu, linear, op.mem_bytes, write ? cpu.need_write : cpu.need_read)) [[likely]]
      return run(cpu, op, host);
  if (alignment_checks(cpu)) {
    const unsigned checked = checked_bytes(cpu, insn, op);
    Gva within;
    if (linear.raw & (checked - 1) && in_reach(cpu, linear))  // the segment's fault comes first
      return at.linear(0, checked, write ? Access::write : Access::read, within) ? cpu.raise(cpu::Vector::ac)
                                                                                 : Outcome::fault;
  }
  const cpu::AlignmentUnchecked unchecked{cpu};
  if (kind == Kind::mask_move) return mask_move(at, op);
  return write ? masked_store(at, op) : masked_load(at, op);
}

// Elements complete from the least significant on; a fault leaves those before it done and their mask bits clear, so
// that the instruction can be started again (SDM Vol. 2B VGATHERDPS).
Outcome execute_gather(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  const u64 base = effective(cpu, insn);
  const u8* indices = cpu.vec.zmm[insn.mem.index & 31];
  u8* data = cpu.vec.zmm[op.data_reg];
  const ElementMask mask{cpu, op};
  mask.normalize();
  const unsigned filled = op.count * op.element_bytes, length = vector_bytes(op);
  const cpu::AlignmentUnchecked unchecked{cpu};
  // After a fault AMD's processors have left the upper halves of a VEX gather's registers alone.
  const bool clears_upper = (op.flags & flag::evex) || !amd(cpu);
  bool any_done = false;
  for (unsigned i = 0; i < op.count; i++) {
    if (!mask.test(i)) {
      mask.clear(i);
      continue;
    }
    const Target at{cpu, insn.mem.seg, element_offset(insn, op, base, indices, i)};
    u8 element[8];
    Gva linear;
    if (!at.linear(0, op.element_bytes, Access::read, linear)) return stopped_at_element(cpu, any_done);
    if (const u8* host = tlb_lookup(cpu, linear, op.element_bytes, cpu.need_read))
      std::memcpy(element, host, op.element_bytes);
    else if (!read_slow(cpu, at.seg, linear, element, op.element_bytes))
      return stopped_at_element(cpu, any_done);
    std::memcpy(data + i * op.element_bytes, element, op.element_bytes);
    if (clears_upper) std::memset(data + length, 0, 64 - length);
    mask.clear(i);
    any_done = true;
  }
  mask.clear_all();
  std::memset(data + filled, 0, 64 - filled);
  return Outcome::next;
}

Outcome execute_scatter(Vcpu& cpu, const isa::Insn& insn, const VectorOp& op) {
  const u64 base = effective(cpu, insn);
  const u8* indices = cpu.vec.zmm[insn.mem.index & 31];
  const u8* data = cpu.vec.zmm[op.data_reg];
  const ElementMask mask{cpu, op};
  const cpu::AlignmentUnchecked unchecked{cpu};
  bool any_done = false;
  for (unsigned i = 0; i < op.count; i++) {
    if (!mask.test(i)) continue;
    const Target at{cpu, insn.mem.seg, element_offset(insn, op, base, indices, i)};
    Gva linear;
    if (!at.linear(0, op.element_bytes, Access::write, linear)) return stopped_at_element(cpu, any_done);
    if (u8* host = tlb_lookup(cpu, linear, op.element_bytes, cpu.need_write))
      std::memcpy(host, data + i * op.element_bytes, op.element_bytes);
    else if (!write_slow(cpu, at.seg, linear, data + i * op.element_bytes, op.element_bytes))
      return stopped_at_element(cpu, any_done);
    mask.clear(i);
    any_done = true;
  }
  mask.clear_all();
  return Outcome::next;
}

}  // namespace trapline::engine::vector

namespace trapline::engine {

unsigned VectorUnit::element_addresses(const cpu::Vcpu& cpu, const isa::Insn& insn, const VectorOp& op,
                                       u64 (&out)[kMostElements]) {
  const u64 offset = vector::effective(cpu, insn), base = cpu.segment(insn.mem.seg).linear_base;
  for (unsigned i = 0; i < op.count; i++)
    out[i] = (base + vector::element_offset(insn, op, offset, cpu.vec.zmm[insn.mem.index & 31], i)) & cpu.linear_mask;
  return op.count;
}

}  // namespace trapline::engine
