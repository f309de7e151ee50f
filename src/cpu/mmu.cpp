// The slow path of guest memory accesses: what tlb_lookup() did not find. Checks both pages of an access before a byte
// moves. Intel SDM Vol. 3A sections 4.6 (access rights), 6.15 (#PF, #AC), 17.2 (data breakpoints).
#include "cpu/mmu.h"

#include <algorithm>
#include <mutex>

#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/debug_port.h"
#include "cpu/hypervisor.h"
#include "cpu/lapic.h"
#include "cpu/mmu_internal.h"
#include "cpu/write_watch.h"

namespace trapline::cpu {

namespace {

bool writes(Access access) { return access == Access::write || access == Access::rmw; }

bool holds_code(const Vcpu& cpu, Gpa gpa) { return cpu.code && cpu.code->has_code(gpa.frame()); }

// The part of an access that lies in one page.
struct PagePart {
  Gva linear = {};
  unsigned size = 0;
  Gpa gpa = {};
  u8* host = nullptr;  // null: device memory
  bool rom = false;    // only to be read
  bool table = false;  // a page table that only the hypervisor writes to
};

struct Span {
  PagePart piece[2];
  unsigned count = 0;
};

// A data entry for what the walk found. Decoded code keeps the write bits out until it is gone.
TlbEntry entry_for(const Vcpu& cpu, Gva linear, const Walk& w) {
  TlbEntry e;
  e.tag = linear.page();
  e.addend = reinterpret_cast<u64>(cpu.ram_base) + w.gpa.raw - e.tag.raw;
  const bool writes_slowly = !w.dirty || cpu.ram->is_rom(w.gpa);
  e.slow_perm = static_cast<u16>(writes_slowly ? w.perms & ~kWriteBits : w.perms);
  e.perm = holds_code(cpu, w.gpa) ? e.slow_perm & ~kWriteBits : e.slow_perm;
  e.global = w.global;
  e.page_shift = w.page_shift;
  e.gpa = w.gpa;
  return e;
}

// A new entry under a watcher: only an announced write gives permission.
void watched(Vcpu& cpu, TlbEntry& e, Access access) {
  if (cpu.tlb_mirror) cpu.tlb_mirror->filled(e);
  if (writes(access))
    write_watch->writing(e.gpa, e);
  else
    e.perm &= ~kWriteBits;
}

// The walk has faulted. A store that the hypervisor takes is none: it goes the way of device memory.
bool hypervisor_takes(Vcpu& cpu, Access access, PagePart& piece) {
  constexpr u32 kProtection = pf_error::present | pf_error::write;
  if (!cpu.hypervisor || !writes(access) || (cpu.fault.error & (kProtection | pf_error::reserved)) != kProtection)
    return false;
  Gpa gpa;
  if (!peek_translate(cpu, piece.linear, &gpa)) return false;
  if (!cpu.hypervisor->takes_write(cpu, piece.linear, gpa, piece.size)) return false;
  piece.gpa = gpa;
  piece.host = nullptr;
  piece.table = true;
  return true;
}

bool resolve(Vcpu& cpu, Access access, u32 need, bool user, PagePart& piece) {
  TlbEntry& e = state(cpu).half_of(piece.linear).data.at(piece.linear);
  // A hypervisor takes write permission away for good where code only borrows it: the tables say which.
  const bool revoked = cpu.hypervisor && writes(access) && !(e.perm & need);
  if (e.tag == piece.linear.page() && (e.slow_perm & need) && !revoked) {
    piece.gpa = e.gpa.wrapping_add(piece.linear.page_offset());
    piece.host = e.host(piece.linear);
    if (writes(access) && !(e.perm & need) && !holds_code(cpu, e.gpa)) {  // the code in it is gone
      e.perm = e.slow_perm;
      tlb_note_writer(cpu, piece.linear, e.gpa.frame());
    }
    if (write_watch && writes(access)) [[unlikely]]
      write_watch->writing(e.gpa, e);
    return true;
  }
  Walk w;
  if (!walk(cpu, piece.linear, access, need, user, w)) {
    if (hypervisor_takes(cpu, access, piece)) return true;
    tlb_page_fault(cpu, piece.linear);
    return false;
  }
  piece.gpa = w.gpa.wrapping_add(piece.linear.page_offset());
  piece.host = nullptr;
  if (is_plain_memory(cpu, w.gpa)) {
    cpu.ram->expect(w.gpa);
    piece.rom = cpu.ram->is_rom(w.gpa);
    tlb_fill(cpu, piece.linear, entry_for(cpu, piece.linear, w), false);
    if (write_watch) [[unlikely]]
      watched(cpu, state(cpu).half_of(piece.linear).data.at(piece.linear), access);
    piece.host = reinterpret_cast<u8*>(cpu.ram_base + piece.gpa.raw);
  }
  return true;
}

bool noncanonical_fault(Vcpu& cpu, Seg seg) {
  static_cast<void>(cpu.raise(seg == Seg::ss ? Vector::ss : Vector::gp));
  return false;
}

// Alignment by data type (SDM table 6-7); SSE and wider accesses never raise #AC.
bool misaligned(const Vcpu& cpu, Gva linear, unsigned size) {
  if (!alignment_checks(cpu)) return false;
  const unsigned mask = size == 2 ? 1 : size == 4 || size == 6 ? 3 : size == 8 || size == 10 ? 7 : 0;
  return linear.raw & mask;
}

// DR6 bits of the data breakpoints that the access touches.
u32 data_breakpoints(const Vcpu& cpu, Gva linear, unsigned size, bool write) {
  const u64 dr7 = cpu.debug.dr7;
  if (!(dr7 & 0xff)) return 0;
  static constexpr u8 kLength[4] = {1, 2, 8, 4};
  u32 hits = 0;
  for (unsigned i = 0; i < 4; i++) {
    const unsigned kind = dr7 >> (16 + 4 * i) & 3;
    if (!(dr7 >> (2 * i) & 3) || !(kind == 3 || (kind == 1 && write))) continue;
    const u64 length = kLength[dr7 >> (18 + 4 * i) & 3];
    const Gva first{cpu.debug.dr[i] & ~(length - 1)};
    if (linear - first < length || first - linear < size) hits |= 1u << i;
  }
  return hits;
}

// Translates the one or two pages of an access of at most a page, with every check.
bool resolve_span(Vcpu& cpu, Seg seg, Gva linear, unsigned size, Access access, bool system, Span& span) {
  const u64 mask = cpu.long_mode_active() && (system || cpu.in_long64()) ? ~u64{0} : 0xffffffff;
  linear = Gva{linear.raw & mask};
  if (cpu.long_mode_active() && !(canonical(linear) && canonical((linear.raw + size - 1) & mask)))
    return noncanonical_fault(cpu, seg);
  if (!system && misaligned(cpu, linear, size)) {  // before the pages are looked at, as processors do
    static_cast<void>(cpu.raise(Vector::ac));
    return false;
  }
  const u32 need = needed(cpu, access, system);
  const bool user = cpu.cpl == 3 && !system;
  const unsigned first = static_cast<unsigned>(std::min<u64>(size, kPageSize - linear.page_offset()));
  span.piece[0] = PagePart{.linear = linear, .size = first};
  span.count = 1;
  if (first != size)
    span.piece[span.count++] = PagePart{.linear = Gva{(linear.raw + first) & mask}, .size = size - first};
  for (unsigned i = 0; i < span.count; i++)
    if (!resolve(cpu, access, need, user, span.piece[i])) return false;
  if (system) return true;
  cpu.debug_hits |= data_breakpoints(cpu, linear, size, writes(access));
  if (cpu.debugger && cpu.debugger->watching() && cpu.debugger->accessed(cpu, linear, size, writes(access)))
    cpu.debug_hits |= kDebuggerHit;
  return true;
}

// One host access for the sizes that the guest may expect to be single-copy atomic.
void copy(void* to, const void* from, unsigned size) {
  switch (size) {
    case 1:
      __builtin_memcpy(to, from, 1);
      break;
    case 2:
      __builtin_memcpy(to, from, 2);
      break;
    case 4:
      __builtin_memcpy(to, from, 4);
      break;
    case 8:
      __builtin_memcpy(to, from, 8);
      break;
    case 16:
      __builtin_memcpy(to, from, 16);
      break;
    default:
      std::memcpy(to, from, size);
  }
}

// -- Device memory: naturally aligned pieces of at most 8 bytes, in ascending order; the local APIC sees dwords

unsigned cycle_size(Gpa gpa, unsigned size, unsigned most) {
  unsigned n = most;
  while (n > size || (gpa.raw & (n - 1))) n /= 2;
  return n;
}

bool lapic_page(const Vcpu& cpu, Gpa gpa) { return cpu.lapic && cpu.lapic->owns(gpa); }

void device_read(Vcpu& cpu, Gpa gpa, u8* out, unsigned size) {
  if (write_watch && write_watch->device()) [[unlikely]] {
    std::memset(out, 0, size);
    return;
  }
  const bool apic = lapic_page(cpu, gpa);
  while (size) {
    const unsigned n = cycle_size(gpa, size, apic ? 4 : 8);
    u64 value = ~u64{0};
    cpu.count.mmio_reads++;
    if (apic)
      value = cpu.lapic->mmio_read(gpa.raw & 0xffc) >> (gpa.raw & 3) * 8;
    else if (cpu.bus)
      value = cpu.bus->mmio_read(cpu, gpa, n);
    TRACE(exits, "mmio read {} size {} -> {:#x}", gpa, n, n == 8 ? value : value & ((u64{1} << n * 8) - 1));
    std::memcpy(out, &value, n);
    gpa = gpa.wrapping_add(n), out += n, size -= n;
  }
}

void device_write(Vcpu& cpu, Gpa gpa, const u8* in, unsigned size) {
  if (write_watch && write_watch->device()) [[unlikely]]
    return;
  const bool apic = lapic_page(cpu, gpa);
  while (size) {
    const unsigned n = cycle_size(gpa, size, apic ? 4 : 8);
    u64 value = 0;
    std::memcpy(&value, in, n);
    cpu.count.mmio_writes++;
    TRACE(exits, "mmio write {} size {} <- {:#x}", gpa, n, value);
    if (apic) {
      if (n == 4) cpu.lapic->mmio_write(gpa.raw & 0xfff, static_cast<u32>(value));
    } else if (cpu.bus) {
      cpu.bus->mmio_write(cpu, gpa, n, value);
    }
    gpa = gpa.wrapping_add(n), in += n, size -= n;
  }
}

void load(Vcpu& cpu, const Span& span, void* out) {
  u8* to = static_cast<u8*>(out);
  for (unsigned i = 0; i < span.count; i++) {
    const PagePart& p = span.piece[i];
    if (p.host)
      copy(to, p.host, p.size);
    else
      device_read(cpu, p.gpa, to, p.size);
    to += p.size;
  }
}

void store(Vcpu& cpu, const Span& span, const void* in) {
  const u8* from = static_cast<const u8*>(in);
  for (unsigned i = 0; i < span.count; i++) {
    const PagePart& p = span.piece[i];
    if (p.rom) {
      TRACE(exits, "write to ROM {} size {}", p.gpa, p.size);
    } else if (p.host) {
      copy(p.host, from, p.size);
      // After the bytes: a block decoded in between has recorded the old generation and is stale.
      if (holds_code(cpu, p.gpa)) cpu.code->written(p.gpa.frame(), static_cast<u32>(p.gpa.page_offset()), p.size);
    } else {
      device_write(cpu, p.gpa, from, p.size);
    }
    from += p.size;
  }
}

template <class T>
bool exchange_as(u8* cell, const void* expected, const void* in) {
  T old, now;
  std::memcpy(&old, expected, sizeof(T));
  std::memcpy(&now, in, sizeof(T));
  if (crosses_line(cell, sizeof(T)) && split_locks_trap()) return compare_exchange_in_turn(cell, &old, &now, sizeof(T));
  return __atomic_compare_exchange_n(reinterpret_cast<T*>(cell), &old, now, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

bool exchange16(u8* cell, const void* expected, const void* in) {
  u64 old[2], now[2];
  std::memcpy(old, expected, 16);
  std::memcpy(now, in, 16);
  bool equal;
  asm volatile("lock cmpxchg16b %[cell]"
               : "=@ccz"(equal), [cell] "+m"(*reinterpret_cast<unsigned __int128*>(cell)), "+a"(old[0]), "+d"(old[1])
               : "b"(now[0]), "c"(now[1])
               : "memory");
  return equal;
}

// The bytes become those of `in` if they are those of `expected`, with the host's LOCK.
bool exchange(u8* cell, const void* expected, const void* in, unsigned size) {
  switch (size) {
    case 1:
      return exchange_as<u8>(cell, expected, in);
    case 2:
      return exchange_as<u16>(cell, expected, in);
    case 4:
      return exchange_as<u32>(cell, expected, in);
    case 8:
      return exchange_as<u64>(cell, expected, in);
    default:
      INVARIANT(size == 16, "a locked access of {} bytes", size);
      return exchange16(cell, expected, in);
  }
}

bool read_any(Vcpu& cpu, Seg seg, Gva linear, void* out, unsigned size, bool system) {
  INVARIANT(size - 1 < kPageSize, "an access of {} bytes", size);
  Span span;
  if (!resolve_span(cpu, seg, linear, size, Access::read, system, span)) return false;
  load(cpu, span, out);
  return true;
}

bool write_any(Vcpu& cpu, Seg seg, Gva linear, const void* in, unsigned size, bool system) {
  INVARIANT(size - 1 < kPageSize, "an access of {} bytes", size);
  Span span;
  if (!resolve_span(cpu, seg, linear, size, Access::write, system, span)) return false;
  if (span.piece[0].table) return cpu.hypervisor->write_table(cpu, linear, span.piece[0].gpa, in, size);
  store(cpu, span, in);
  return true;
}

}  // namespace

u32 needed(const Vcpu& cpu, Access access, bool system) {
  if (cpu.cpl == 3 && !system && !kernel_at_cpl3(cpu))
    return access == Access::fetch ? perm::user_fetch : writes(access) ? perm::user_write : perm::user_read;
  if (access == Access::fetch) return perm::kernel_fetch;
  // Implicit accesses fall under SMAP whatever AC says (SDM 4.6.1).
  const bool smap = cpu.hypervisor ? system : (cpu.cr4 & cr4::smap) && (system || !(cpu.sys_flags & flag::ac));
  if (writes(access)) return smap ? perm::kernel_write : perm::kernel_ac_write;
  return smap ? perm::kernel_read : perm::kernel_ac_read;
}

bool is_plain_ram(const Vcpu& cpu, Gpa gpa) { return cpu.ram->is_ram(gpa) && !lapic_page(cpu, gpa); }
bool is_plain_memory(const Vcpu& cpu, Gpa gpa) { return cpu.ram->is_memory(gpa) && !lapic_page(cpu, gpa); }

bool read_slow(Vcpu& cpu, Seg seg, Gva linear, void* out, unsigned size) {
  return read_any(cpu, seg, linear, out, size, false);
}

bool write_slow(Vcpu& cpu, Seg seg, Gva linear, const void* in, unsigned size) {
  return write_any(cpu, seg, linear, in, size, false);
}

bool read_system(Vcpu& cpu, Gva linear, void* out, unsigned size, Seg seg) {
  const Gva at{cpu.long_mode_active() ? linear.raw : linear.raw & 0xffffffff};
  if (const u8* host = tlb_lookup(cpu, at, size, needed(cpu, Access::read, true))) {
    copy(out, host, size);
    return true;
  }
  return read_any(cpu, seg, linear, out, size, true);
}

bool write_system(Vcpu& cpu, Gva linear, const void* in, unsigned size, Seg seg) {
  return write_any(cpu, seg, linear, in, size, true);
}

bool probe(Vcpu& cpu, Seg seg, Gva linear, unsigned size, Access access) {
  const u32 hits = cpu.debug_hits;
  for (u64 done = 0; done < size;) {
    const Gva at = linear.wrapping_add(done);
    const u64 to_page_end = kPageSize - at.page_offset();
    const u64 rest = size - done;
    // One span while it fits, for #AC by the whole size; else page by page.
    const unsigned n = static_cast<unsigned>(size <= kPageSize ? size : std::min(rest, to_page_end));
    Span span;
    if (!resolve_span(cpu, seg, at, n, access, false, span)) return false;
    done += n;
  }
  cpu.debug_hits = hits;  // nothing has been accessed yet
  return true;
}

u8* rmw_slow(Vcpu& cpu, Seg seg, Gva linear, unsigned size, bool* faulted) {
  Span span;
  const u32 hits = cpu.debug_hits;
  *faulted = !resolve_span(cpu, seg, linear, size, Access::rmw, false, span);
  if (*faulted) return nullptr;
  if (span.count == 1 && span.piece[0].host && !span.piece[0].rom && !holds_code(cpu, span.piece[0].gpa))
    return span.piece[0].host;
  cpu.debug_hits = hits;  // read_slow and write_slow will tell
  return nullptr;
}

bool replace_slow(Vcpu& cpu, Seg seg, Gva linear, const void* expected, const void* in, unsigned size, bool* stored) {
  Span span;
  if (!resolve_span(cpu, seg, linear, size, Access::rmw, false, span)) return false;
  const PagePart& p = span.piece[0];
  *stored = true;
  if (p.table) return cpu.hypervisor->replace_table(cpu, linear, p.gpa, expected, in, size, stored);
  if (span.count != 1 || !p.host || p.rom) {
    store(cpu, span, in);
    return true;
  }
  *stored = exchange(p.host, expected, in, size);
  if (*stored && holds_code(cpu, p.gpa)) cpu.code->written(p.gpa.frame(), static_cast<u32>(p.gpa.page_offset()), size);
  return true;
}

const TlbEntry* fetch_page(Vcpu& cpu, Gva linear) {
  if (cpu.long_mode_active() && !canonical(linear)) {
    static_cast<void>(cpu.raise_gp());
    return nullptr;
  }
  Walk w;
  if (!walk(cpu, linear, Access::fetch, needed(cpu, Access::fetch, false), cpu.cpl == 3, w)) {
    tlb_page_fault(cpu, linear);
    return nullptr;
  }
  if (!is_plain_memory(cpu, w.gpa)) {
    static_cast<void>(cpu.raise_gp());
    return nullptr;
  }
  TlbEntry e = entry_for(cpu, linear, w);
  e.perm &= perm::kernel_fetch | perm::user_fetch;
  e.slow_perm = 0;
  tlb_fill(cpu, linear, e, true);
  return &state(cpu).half_of(linear).fetch.at(linear);
}

bool peek(const Vcpu& cpu, Gva linear, void* out, unsigned size) {
  u8* to = static_cast<u8*>(out);
  while (size) {
    const unsigned n = static_cast<unsigned>(std::min<u64>(size, kPageSize - linear.page_offset()));
    Gpa gpa;
    if (!peek_translate(cpu, linear, &gpa) || !cpu.ram->is_memory(gpa)) return false;
    std::memcpy(to, cpu.ram->host(gpa), n);
    linear = linear.wrapping_add(n), to += n, size -= n;
  }
  return true;
}

bool poke(Vcpu& cpu, Gva linear, const void* in, unsigned size) {
  const u8* from = static_cast<const u8*>(in);
  while (size) {
    const unsigned n = static_cast<unsigned>(std::min<u64>(size, kPageSize - linear.page_offset()));
    Gpa gpa;
    if (!peek_translate(cpu, linear, &gpa) || !cpu.ram->is_ram(gpa)) return false;
    std::memcpy(cpu.ram->host(gpa), from, n);
    if (cpu.code) cpu.code->written(gpa.frame(), static_cast<u32>(gpa.page_offset()), n);
    linear = linear.wrapping_add(n), from += n, size -= n;
  }
  return true;
}

}  // namespace trapline::cpu
