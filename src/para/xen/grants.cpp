// Grants, version 1 (xen/grant_table.h): the one domain that there is may map and copy what it has granted to itself.
// What it grants to its back ends: for_back_ends.cpp.
//
// A page-table entry that a grant makes is counted as every other is (frames.h), so nothing here can lose a reference:
// the handle remembers what the entry was to be, and only such an entry is taken away again.
#include "base/trace.h"
#include "cpu/code_map.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"
#include "para/xen/locked.h"

namespace trapline::para::xen {

namespace {

constexpr u64 kMostCalls = 1 << 12;
constexpr std::size_t kMostMaps = 1 << 16;
constexpr u32 kEntriesPerFrame = kPageSize / sizeof(grant_entry_v1_t);
constexpr u32 kMapped = GNTMAP_device_map | GNTMAP_host_map;

bool self(domid_t domain) { return domain == DOMID_SELF || domain == kDomain; }
// Domain 0 is there, and has granted nothing.
i16 status_of_domain(domid_t domain) {
  return static_cast<i16>(domain == kBackDomain ? GNTST_general_error : GNTST_bad_domain);
}

// Runs `each` on every operation of the guest's array and writes it back.
template <class Op, class Each>
Status for_all(cpu::Vcpu& cpu, Gva argument, u64 count, Each each) {
  for (u64 i = 0; i < count; i++) {
    Op op;
    if (!get(cpu, argument.wrapping_add(i * sizeof op), op)) return fail(XEN_EFAULT);
    op.status = each(op);
    if (!put(cpu, argument.wrapping_add(i * sizeof op), op)) return fail(XEN_EFAULT);
  }
  return 0;
}

}  // namespace

// A device's mapping, which has no page-table entry to hold the frame.
bool Domain::hold(cpu::Vcpu& cpu, Mfn frame, bool writes) {
  if (writes) return frames_.get(cpu, frame, Type::writable);
  if (frames_[frame].refs == ~u32{0}) return false;
  frames_[frame].refs++;
  return true;
}

void Domain::let_go(cpu::Vcpu& cpu, Mfn frame, bool writes) {
  if (writes)
    frames_.put(cpu, frame, Type::writable);
  else
    frames_[frame].refs--;
}

// The caller holds lock_. An entry that grants to `to_domain`; `writes`: it is to be written to.
i16 Domain::granted(u32 ref, bool writes, Mfn* frame, u16** flags, domid_t to_domain) {
  if (ref >= grant_frames_ * kEntriesPerFrame) return GNTST_bad_gntref;
  auto* entry = reinterpret_cast<grant_entry_v1_t*>(frames_.table(layout_.grants)) + ref;
  const u16 now = __atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE);
  const domid_t to = __atomic_load_n(&entry->domid, __ATOMIC_RELAXED);
  if ((now & GTF_type_mask) != GTF_permit_access || to != to_domain) return GNTST_general_error;
  if (writes && (now & GTF_readonly)) return GNTST_general_error;
  *frame = Mfn{__atomic_load_n(&entry->frame, __ATOMIC_RELAXED)};
  if (!frames_.owned(*frame)) return GNTST_general_error;
  *flags = &entry->flags;
  return GNTST_okay;
}

// The level-1 entry that an operation names: by the linear address that it maps, or by its own machine address.
bool Domain::named_entry(cpu::Vcpu& cpu, u64 address, bool is_entry, Mfn* table, unsigned* index) {
  if (!is_entry) return guest_range(Gva{address}, 1) && entry_of(cpu, Gva{address}, table, index) != nullptr;
  *table = mfn_of(Gpa{address}), *index = static_cast<unsigned>(address >> 3 & 511);
  return address % sizeof(u64) == 0 && frames_.is(*table, Type::l1);
}

i16 Domain::map_grant(cpu::Vcpu& cpu, gnttab_map_grant_ref& op) {
  if (!(op.flags & kMapped)) return GNTST_bad_gntref;
  if (!self(op.dom)) return status_of_domain(op.dom);
  if (grants_.size() >= kMostMaps) return GNTST_no_device_space;
  const bool writes = !(op.flags & GNTMAP_readonly);
  Mfn frame, table;
  u16* flags;
  unsigned index;
  if (const i16 status = granted(op.ref, writes, &frame, &flags); status != GNTST_okay) return status;
  const GrantMap map{op.ref, op.flags, frame};
  if ((op.flags & GNTMAP_device_map) && !hold(cpu, frame, writes)) return GNTST_general_error;
  if (op.flags & GNTMAP_host_map) {
    constexpr u64 kBits = pte::present | pte::user | pte::accessed | pte::dirty;
    const u64 entry = gpa(frame).raw | kBits | (writes ? pte::writable : 0);
    if (!named_entry(cpu, op.host_addr, op.flags & GNTMAP_contains_pte, &table, &index) ||
        !frames_.write_entry(cpu, table, index, entry, false)) {
      if (op.flags & GNTMAP_device_map) let_go(cpu, frame, writes);
      return GNTST_general_error;
    }
  }
  __atomic_fetch_or(flags, static_cast<u16>(GTF_reading | (writes ? GTF_writing : 0)), __ATOMIC_SEQ_CST);
  op.handle = next_grant_++;
  op.dev_bus_addr = gpa(frame).raw;
  grants_[op.handle] = map;
  return GNTST_okay;
}

// Takes the entry away, or puts `instead` in its place. It must be what the grant has made.
i16 Domain::unmap_host(cpu::Vcpu& cpu, GrantMap& map, u64 address, u64 instead) {
  Mfn table;
  unsigned index;
  if (!named_entry(cpu, address, map.flags & GNTMAP_contains_pte, &table, &index)) return GNTST_general_error;
  const u64 entry = __atomic_load_n(frames_.table(table) + index, __ATOMIC_RELAXED);
  const bool writes = !(map.flags & GNTMAP_readonly);
  if (!(entry & pte::present) || pte::mfn(entry) != map.frame || writes != ((entry & pte::writable) != 0))
    return GNTST_general_error;
  if (!frames_.write_entry(cpu, table, index, instead, false)) return GNTST_general_error;
  if (cpu.code) cpu.code->flush_everywhere(cpu);
  map.flags &= ~u32{GNTMAP_host_map};
  return GNTST_okay;
}

void Domain::end_grant_if_unmapped(u32 handle) {
  const auto at = grants_.find(handle);
  if (at == grants_.end() || (at->second.flags & kMapped)) return;
  const u32 ref = at->second.ref;
  grants_.erase(at);
  end_grant(ref);
}

// Nothing maps it any more, or something does still.
void Domain::end_grant(u32 ref) {
  for (const auto& [other, map] : grants_)
    if (map.ref == ref) return;
  if (ref < held_.size() && held_[ref] != 0) return;
  auto* entry = reinterpret_cast<grant_entry_v1_t*>(frames_.table(layout_.grants)) + ref;
  __atomic_fetch_and(&entry->flags, static_cast<u16>(~(GTF_reading | GTF_writing)), __ATOMIC_SEQ_CST);
}

i16 Domain::unmap_grant(cpu::Vcpu& cpu, const gnttab_unmap_grant_ref& op) {
  const auto at = grants_.find(op.handle);
  if (at == grants_.end()) return GNTST_bad_handle;
  GrantMap& map = at->second;
  if (op.dev_bus_addr != 0 && (map.flags & GNTMAP_device_map)) {
    if (op.dev_bus_addr != gpa(map.frame).raw) return GNTST_general_error;
    let_go(cpu, map.frame, !(map.flags & GNTMAP_readonly));
    map.flags &= ~u32{GNTMAP_device_map};
  }
  if (op.host_addr != 0 && (map.flags & GNTMAP_host_map))
    if (const i16 status = unmap_host(cpu, map, op.host_addr, 0); status != GNTST_okay) return status;
  end_grant_if_unmapped(op.handle);
  return GNTST_okay;
}

// The mapping at `new_addr` moves to where the grant was.
i16 Domain::replace_grant(cpu::Vcpu& cpu, const gnttab_unmap_and_replace& op) {
  const auto at = grants_.find(op.handle);
  if (at == grants_.end()) return GNTST_bad_handle;
  if (!(at->second.flags & GNTMAP_host_map)) return GNTST_general_error;
  Mfn table;
  unsigned index;
  u64 instead = 0;
  if (op.new_addr != 0) {
    if (!named_entry(cpu, op.new_addr, false, &table, &index)) return GNTST_general_error;
    instead = __atomic_load_n(frames_.table(table) + index, __ATOMIC_RELAXED);
  }
  if (const i16 status = unmap_host(cpu, at->second, op.host_addr, instead); status != GNTST_okay) return status;
  if (op.new_addr != 0) {
    static_cast<void>(frames_.write_entry(cpu, table, index, 0, false));
    if (cpu.code) cpu.code->flush_everywhere(cpu);
  }
  end_grant_if_unmapped(op.handle);
  return GNTST_okay;
}

i16 Domain::copy_grant(cpu::Vcpu& cpu, const gnttab_copy& op) {
  const auto inside = [&op](u64 offset) { return offset + op.len <= kPageSize; };
  if (!inside(op.source.offset) || !inside(op.dest.offset)) return GNTST_bad_copy_arg;
  Mfn from{op.source.u.gmfn}, to{op.dest.u.gmfn};
  u16* flags;
  for (const domid_t domain : {op.source.domid, op.dest.domid})
    if (!self(domain)) return status_of_domain(domain);
  if (op.flags & GNTCOPY_source_gref)
    if (const i16 s = granted(op.source.u.ref, false, &from, &flags); s != GNTST_okay) return s;
  if (op.flags & GNTCOPY_dest_gref)
    if (const i16 s = granted(op.dest.u.ref, true, &to, &flags); s != GNTST_okay) return s;
  if (!frames_.owned(from) || !frames_.owned(to)) return GNTST_general_error;
  if (!frames_.get(cpu, to, Type::writable)) return GNTST_general_error;
  std::memmove(reinterpret_cast<u8*>(frames_.table(to)) + op.dest.offset,
               reinterpret_cast<const u8*>(frames_.table(from)) + op.source.offset, op.len);
  if (cpu.code) cpu.code->written(to.raw, op.dest.offset, op.len);
  frames_.put(cpu, to, Type::writable);
  return GNTST_okay;
}

i16 Domain::set_up_grants(cpu::Vcpu& cpu, const gnttab_setup_table& op) {
  if (!self(op.dom)) return GNTST_permission_denied;
  if (op.nr_frames > kGrantFrames) return GNTST_general_error;
  const Gva list = address_in(op.frame_list);
  for (u32 frame = 0; frame < op.nr_frames; frame++)
    if (!put(cpu, list.wrapping_add(frame * 8u), layout_.grants + frame)) return GNTST_bad_virt_addr;
  grant_frames_ = std::max(grant_frames_, op.nr_frames);
  return GNTST_okay;
}

Status Domain::grant_table_op(cpu::Vcpu& cpu, u64 command, Gva argument, u64 count) {
  count &= 0xffffffff;
  if (count > kMostCalls) return fail(XEN_EINVAL);
  const Locked locked{*this, cpu};
  switch (command) {
    case GNTTABOP_map_grant_ref:
      return for_all<gnttab_map_grant_ref>(cpu, argument, count, [&](auto& op) { return map_grant(cpu, op); });
    case GNTTABOP_unmap_grant_ref:
      return for_all<gnttab_unmap_grant_ref>(cpu, argument, count, [&](auto& op) { return unmap_grant(cpu, op); });
    case GNTTABOP_unmap_and_replace:
      return for_all<gnttab_unmap_and_replace>(cpu, argument, count, [&](auto& op) { return replace_grant(cpu, op); });
    case GNTTABOP_copy:
      return for_all<gnttab_copy>(cpu, argument, count, [&](auto& op) { return copy_grant(cpu, op); });
    case GNTTABOP_setup_table:
      if (count != 1) return fail(XEN_EINVAL);
      return for_all<gnttab_setup_table>(cpu, argument, 1, [&](auto& op) { return set_up_grants(cpu, op); });
    case GNTTABOP_query_size:
      if (count != 1) return fail(XEN_EINVAL);
      return for_all<gnttab_query_size>(cpu, argument, 1, [&](auto& op) -> i16 {
        op.nr_frames = std::max(grant_frames_, 1u);
        op.max_nr_frames = kGrantFrames;
        return static_cast<i16>(self(op.dom) ? GNTST_okay : GNTST_permission_denied);
      });
    case GNTTABOP_get_version: {
      gnttab_get_version_t op;
      if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
      if (!self(op.dom)) return fail(XEN_EPERM);
      op.version = 1;
      return put(cpu, argument, op) ? 0 : fail(XEN_EFAULT);
    }
    case GNTTABOP_set_version: {
      gnttab_set_version_t op;
      if (!get(cpu, argument, op)) return fail(XEN_EFAULT);
      if (op.version == 1) return 0;
      if (op.version != 2) return fail(XEN_EINVAL);
      op.version = 1;
      return put(cpu, argument, op) ? fail(XEN_ENOSYS) : fail(XEN_EFAULT);
    }
    default:
      return fail(XEN_ENOSYS);
  }
}

}  // namespace trapline::para::xen
