// mmu_update, mmuext_op, update_va_mapping, and the guest's own stores to its page tables. What an entry's change
// leaves in TLBs is the guest's to flush, as on a processor; what must not be left there for the sake of the types is
// flushed by Frames.
#include "base/trace.h"
#include "cpu/code_map.h"
#include "para/xen/bounce.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"
#include "para/xen/locked.h"

namespace trapline::para::xen {

namespace {

constexpr u64 kPreemptible = u64{1} << 31;  // MMU_UPDATE_PREEMPTED, which only Xen's own continuation sets
constexpr u64 kMostRequests = 1 << 20;

bool own_domain(u64 domain) { return (domain & 0xffff) == DOMID_SELF || (domain & 0xffff) == kDomain; }

}  // namespace

Status Domain::mmu_update_one(cpu::Vcpu& cpu, const mmu_update_t& request) {
  const u64 command = request.ptr & 3;
  const Gpa at{request.ptr & ~u64{3}};
  const Mfn mfn = mfn_of(at);
  if (!frames_.owned(mfn)) return fail(XEN_EINVAL);
  switch (command) {
    case MMU_NORMAL_PT_UPDATE:
    case MMU_PT_UPDATE_PRESERVE_AD:
    case MMU_PT_UPDATE_NO_TRANSLATE: {
      if (at.raw & 7) return fail(XEN_EINVAL);
      const Frame& f = frames_[mfn];
      if (f.types != 0 && f.type >= Type::l1 && f.type <= Type::l4)
        return frames_.write_entry(cpu, mfn, static_cast<unsigned>(at.raw >> 3 & 511), request.val,
                                   command == MMU_PT_UPDATE_PRESERVE_AD)
                   ? 0
                   : fail(XEN_EINVAL);
      // Not a table, or not yet: the guest could write there itself.
      if (!frames_.get(cpu, mfn, Type::writable)) return fail(XEN_EINVAL);
      __atomic_store_n(reinterpret_cast<u64*>(ram_.host(at)), request.val, __ATOMIC_SEQ_CST);
      if (cpu.code) cpu.code->written(at.frame(), static_cast<u32>(at.page_offset()), 8);
      frames_.put(cpu, mfn, Type::writable);
      return 0;
    }
    case MMU_MACHPHYS_UPDATE:
      reinterpret_cast<u64*>(ram_.host(gpa(layout_.m2p)))[mfn.raw] = request.val;
      return 0;
    default:
      return fail(XEN_ENOSYS);
  }
}

Status Domain::mmu_update(cpu::Vcpu& cpu, const Arguments& a) {
  const u64 list = a[0], count = a[1] & ~kPreemptible & 0xffffffff, done_at = a[2], foreign = a[3];
  if (!own_domain(foreign)) return fail((foreign & 0xffff) == DOMID_IO ? XEN_EPERM : XEN_ESRCH);
  if (const u64 tables = foreign >> 16; tables != 0 && !own_domain(tables - 1)) return fail(XEN_EPERM);
  if (count > kMostRequests) return fail(XEN_EINVAL);
  Status result = 0;
  u64 done = 0;
  {
    const Locked locked{*this, cpu};
    for (; done < count && result == 0; done++) {
      mmu_update_t request;
      if (!get(cpu, Gva{list + done * sizeof request}, request)) {
        result = fail(XEN_EFAULT);
        break;
      }
      result = mmu_update_one(cpu, request);
      if (result != 0) break;
    }
  }
  if (done_at != 0 && !put(cpu, Gva{done_at}, static_cast<u32>(done)) && result == 0) result = fail(XEN_EFAULT);
  return result;
}

// The level-1 entry that maps `linear` in the kernel's tables, for who may write to it; null: there is none.
u64* Domain::entry_of(cpu::Vcpu& cpu, Gva linear, Mfn* table, unsigned* index) {
  Mfn mfn = state(cpu).kernel_root;
  for (unsigned level = 4; level > 1; level--) {
    const u64 entry =
        __atomic_load_n(frames_.table(mfn) + (linear.raw >> (12 + 9 * (level - 1)) & 511), __ATOMIC_RELAXED);
    if (!(entry & pte::present) || (entry & pte::large)) return nullptr;
    mfn = pte::mfn(entry);
  }
  *table = mfn;
  *index = linear.raw >> 12 & 511;
  return frames_.is(mfn, Type::l1) ? frames_.table(mfn) + *index : nullptr;
}

Status Domain::update_va_mapping(cpu::Vcpu& cpu, Gva linear, u64 value, u64 flags) {
  if (!guest_range(linear, 1)) return fail(XEN_EINVAL);
  {
    const Locked locked{*this, cpu};
    Mfn table;
    unsigned index;
    if (!entry_of(cpu, linear, &table, &index)) return fail(XEN_EINVAL);
    if (!frames_.write_entry(cpu, table, index, value, false)) return fail(XEN_EINVAL);
  }
  return flush_after(cpu, linear, flags);
}

// What the guest means by a flush is everything. Translations of the upper half, which the MMU keeps as a processor keeps
// global ones, stay but for the pages whose entries have changed since, as long as those are few.
void Domain::flush(cpu::Vcpu& cpu) {
  VcpuState& v = state(cpu);
  const u64 changes = frames_.upper_changes();
  const u64 seen = std::exchange(v.upper_seen, changes);
  const auto pages = frames_.changed_pages(seen, changes);
  if (!pages) return cpu::tlb_flush_all(cpu);
  for (u64 i = 0; i < changes - seen; i++) cpu::tlb_flush_page(cpu, (*pages)[i]);
  cpu::tlb_flush_all_nonglobal(cpu);
}

// Is this the upper half of a level-4 table?
bool Domain::same_upper_half(Mfn root, const u64* other) const {
  constexpr u64 kFirst = kLastHypervisorSlot + 1 - kEntries / 2;
  constexpr u64 kUsed = pte::accessed | pte::dirty;
  const u64* one = frames_.table(root) + kEntries / 2;
  u64 differs = 0;
  for (u64 i = kFirst; i < kEntries / 2; i++) differs |= one[i] ^ other[i];
  return (differs & ~kUsed) == 0;
}

// A bitmap of vCPUs is a hint whom to spare: all are asked.
Status Domain::flush_after(cpu::Vcpu& cpu, Gva linear, u64 flags) {
  const bool everywhere = (flags & ~UVMF_FLUSHTYPE_MASK) != UVMF_LOCAL;
  switch (flags & UVMF_FLUSHTYPE_MASK) {
    case UVMF_TLB_FLUSH:
      if (everywhere && cpu.code)
        cpu.code->flush_everywhere(cpu);
      else
        flush(cpu);
      return 0;
    case UVMF_INVLPG:
      if (everywhere && cpu.code)
        cpu.code->flush_page_everywhere(cpu, linear);
      else
        cpu::tlb_flush_page(cpu, linear);
      return 0;
    case UVMF_NONE:
      return 0;
    default:
      return fail(XEN_EINVAL);
  }
}

// -- mmuext_op

Status Domain::pin(cpu::Vcpu& cpu, Mfn mfn, unsigned level) {
  if (!frames_.owned(mfn)) return fail(XEN_EINVAL);
  if (!frames_.get(cpu, mfn, table_type(level))) return fail(XEN_EINVAL);
  if (frames_[mfn].pinned) {
    frames_.put(cpu, mfn, table_type(level));
    return fail(XEN_EINVAL);
  }
  frames_[mfn].pinned = true;
  return 0;
}

Status Domain::unpin(cpu::Vcpu& cpu, Mfn mfn) {
  if (!frames_.owned(mfn) || !frames_[mfn].pinned) return fail(XEN_EINVAL);
  frames_[mfn].pinned = false;
  frames_.put(cpu, mfn, frames_[mfn].type);
  return 0;
}

Status Domain::new_root(cpu::Vcpu& cpu, Mfn mfn) {
  VcpuState& v = state(cpu);
  if (!frames_.owned(mfn) || !frames_.get(cpu, mfn, Type::l4)) return fail(XEN_EINVAL);
  const Mfn old = std::exchange(v.kernel_root, mfn);
  set_roots(cpu, v);
  if (old == kNoMfn || !same_upper_half(mfn, frames_.table(old) + kEntries / 2)) v.upper_seen = ~u64{0};
  flush(cpu);
  if (old != kNoMfn) frames_.put(cpu, old, Type::l4);
  return 0;
}

Status Domain::new_root_locked(cpu::Vcpu& cpu, Mfn mfn) {
  const Locked locked{*this, cpu};
  return new_root(cpu, mfn);
}

Status Domain::new_user_root(cpu::Vcpu& cpu, Mfn mfn) {
  VcpuState& v = state(cpu);
  if (mfn != kNoMfn && (!frames_.owned(mfn) || !frames_.get(cpu, mfn, Type::l4))) return fail(XEN_EINVAL);
  const Mfn old = std::exchange(v.user_root, mfn);
  set_roots(cpu, v);
  // Without one, as threads of the kernel are, no program runs: its translations may stay for the next that is alike.
  if (mfn != kNoMfn && !same_upper_half(mfn, v.user_upper.data())) {
    std::copy_n(frames_.table(mfn) + kEntries / 2, v.user_upper.size(), v.user_upper.begin());
    v.upper_seen = ~u64{0};
  }
  flush(cpu);
  if (old != kNoMfn) frames_.put(cpu, old, Type::l4);
  return 0;
}

Status Domain::mmuext_one(cpu::Vcpu& cpu, const mmuext_op_t& op) {
  switch (op.cmd) {
    case MMUEXT_PIN_L1_TABLE:
    case MMUEXT_PIN_L2_TABLE:
    case MMUEXT_PIN_L3_TABLE:
    case MMUEXT_PIN_L4_TABLE:
      return pin(cpu, Mfn{op.arg1.mfn}, op.cmd - MMUEXT_PIN_L1_TABLE + 1);
    case MMUEXT_UNPIN_TABLE:
      return unpin(cpu, Mfn{op.arg1.mfn});
    case MMUEXT_NEW_BASEPTR:
      return new_root(cpu, Mfn{op.arg1.mfn});
    case MMUEXT_NEW_USER_BASEPTR:
      return new_user_root(cpu, Mfn{op.arg1.mfn});
    case MMUEXT_TLB_FLUSH_LOCAL:
      flush(cpu);
      return 0;
    case MMUEXT_INVLPG_LOCAL:
      if (guest_range(Gva{op.arg1.linear_addr}, 1)) cpu::tlb_flush_page(cpu, Gva{op.arg1.linear_addr});
      return 0;
    case MMUEXT_TLB_FLUSH_MULTI:
    case MMUEXT_TLB_FLUSH_ALL:
      if (cpu.code) cpu.code->flush_everywhere(cpu);
      return 0;
    case MMUEXT_INVLPG_MULTI:
    case MMUEXT_INVLPG_ALL:
      if (guest_range(Gva{op.arg1.linear_addr}, 1) && cpu.code)
        cpu.code->flush_page_everywhere(cpu, Gva{op.arg1.linear_addr});
      return 0;
    case MMUEXT_FLUSH_CACHE:
      return fail(XEN_EACCES);  // for domains with devices
    case MMUEXT_FLUSH_CACHE_GLOBAL:
      return fail(XEN_EACCES);
    case MMUEXT_SET_LDT:
      return set_ldt(cpu, Gva{op.arg1.linear_addr}, op.arg2.nr_ents);
    case MMUEXT_CLEAR_PAGE:
    case MMUEXT_COPY_PAGE: {
      const Mfn to{op.arg1.mfn}, from{op.arg2.src_mfn};
      const bool copies = op.cmd == MMUEXT_COPY_PAGE;
      if (!frames_.owned(to) || (copies && !frames_.owned(from))) return fail(XEN_EINVAL);
      if (!frames_.get(cpu, to, Type::writable)) return fail(XEN_EINVAL);
      if (copies)
        std::memcpy(frames_.table(to), frames_.table(from), kPageSize);
      else
        std::memset(frames_.table(to), 0, kPageSize);
      if (cpu.code) cpu.code->written(to.raw, 0, kPageSize);
      frames_.put(cpu, to, Type::writable);
      return 0;
    }
    case MMUEXT_MARK_SUPER:
    case MMUEXT_UNMARK_SUPER:
    default:
      return fail(XEN_ENOSYS);
  }
}

Status Domain::mmuext_op(cpu::Vcpu& cpu, const Arguments& a) {
  const u64 list = a[0], count = a[1] & ~kPreemptible & 0xffffffff, done_at = a[2], foreign = a[3];
  if (!own_domain(foreign)) return fail(XEN_ESRCH);
  if (count > kMostRequests) return fail(XEN_EINVAL);
  Status result = 0;
  u64 done = 0;
  {
    const Locked locked{*this, cpu};
    for (; done < count; done++) {
      mmuext_op_t op;
      if (!get(cpu, Gva{list + done * sizeof op}, op)) {
        result = fail(XEN_EFAULT);
        break;
      }
      result = mmuext_one(cpu, op);
      if (result != 0) {
        TRACE(exits, "xen: mmuext {} ({:#x}) -> {}", op.cmd, op.arg1.mfn, result);
        break;
      }
    }
  }
  if (done_at != 0 && !put(cpu, Gva{done_at}, static_cast<u32>(done)) && result == 0) result = fail(XEN_EFAULT);
  return result;
}

// -- Stores of the guest's kernel to a level-1 table that it maps read-only, as it must: Xen's writable page tables

bool Domain::takes_write(cpu::Vcpu& cpu, Gva linear, Gpa gpa, unsigned size) {
  const VcpuState& v = state(cpu);
  if (!v.kernel || v.in_hypercall || !guest_range(linear, size)) return false;
  return (gpa.raw & 7) + size <= 8 && frames_.is(mfn_of(gpa), Type::l1);
}

bool Domain::write_table(cpu::Vcpu& cpu, Gva linear, Gpa gpa, const void* in, unsigned size) {
  const cpu::Fault fault{cpu::Vector::pf, cpu::pf_error::present | cpu::pf_error::write, linear.raw, 0};
  const Locked locked{*this, cpu};
  const Mfn mfn = mfn_of(gpa);
  if (frames_.is(mfn, Type::l1)) {
    const unsigned index = static_cast<unsigned>(gpa.raw >> 3 & 511);
    u64 value = __atomic_load_n(frames_.table(mfn) + index, __ATOMIC_RELAXED);
    std::memcpy(reinterpret_cast<u8*>(&value) + (gpa.raw & 7), in, size);
    if (frames_.write_entry(cpu, mfn, index, value, false)) return true;
  }
  cpu.fault = fault;
  return false;
}

bool Domain::replace_table(cpu::Vcpu& cpu, Gva linear, Gpa gpa, const void* expected, const void* in, unsigned size,
                           bool* stored) {
  const cpu::Fault fault{cpu::Vector::pf, cpu::pf_error::present | cpu::pf_error::write, linear.raw, 0};
  const Locked locked{*this, cpu};
  const Mfn mfn = mfn_of(gpa);
  if (frames_.is(mfn, Type::l1)) {
    const unsigned index = static_cast<unsigned>(gpa.raw >> 3 & 511);
    const u64 now = __atomic_load_n(frames_.table(mfn) + index, __ATOMIC_RELAXED);
    u64 old = now, value = now;
    std::memcpy(reinterpret_cast<u8*>(&old) + (gpa.raw & 7), expected, size);
    std::memcpy(reinterpret_cast<u8*>(&value) + (gpa.raw & 7), in, size);
    if (frames_.replace_entry(cpu, mfn, index, old, value, stored)) return true;
  }
  cpu.fault = fault;
  return false;
}

}  // namespace trapline::para::xen
