// memory_op.
#include "base/trace.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"
#include "para/xen/locked.h"

namespace trapline::para::xen {

namespace {

// A command's upper bits number the extent that a continued call goes on from.
constexpr unsigned kExtentShift = 6;
constexpr u64 kMostExtents = 1 << 20;
constexpr u64 kNoMachine = ~u64{0};  // in the machine-to-physical table: nobody's

struct E820Entry {
  u64 address, size;
  u32 type;
} __attribute__((packed));

bool self(domid_t domain) { return domain == DOMID_SELF || domain == kDomain; }

}  // namespace

Status Domain::memory_op(cpu::Vcpu& cpu, u64 command, Gva argument) {
  switch (command & ((1 << kExtentShift) - 1)) {
    case XENMEM_increase_reservation:
    case XENMEM_decrease_reservation:
    case XENMEM_populate_physmap:
      return reservation(cpu, command, argument);
    case XENMEM_maximum_ram_page:
      return static_cast<Status>(layout_.frames() - 1);
    case XENMEM_current_reservation:
    case XENMEM_maximum_reservation:
    case XENMEM_maximum_gpfn: {
      domid_t domain;
      if (!get(cpu, argument, domain)) return fail(XEN_EFAULT);
      if (!self(domain)) return fail(XEN_EPERM);
      const Locked locked{*this, cpu};
      const u64 pages = layout_.pages();
      if (command == XENMEM_maximum_gpfn) return static_cast<Status>(pages - 1);
      return static_cast<Status>(command == XENMEM_current_reservation ? pages - released_.size() : pages);
    }
    case XENMEM_memory_map:
      return memory_map(cpu, argument);
    case XENMEM_machphys_mapping: {
      const xen_machphys_mapping_t m{kHypervisorStart.raw, kHypervisorStart.raw + layout_.m2p_frames * kPageSize,
                                     layout_.frames() - 1};
      return put(cpu, argument, m) ? 0 : fail(XEN_EFAULT);
    }
    case XENMEM_machphys_mfn_list:
      return fail(XEN_EINVAL);
    case XENMEM_machine_memory_map:
    case XENMEM_set_memory_map:
    case XENMEM_set_pod_target:
    case XENMEM_get_pod_target:
    case XENMEM_add_to_physmap:
    case XENMEM_remove_from_physmap:
      return fail(XEN_EPERM);
    default:
      return fail(XEN_ENOSYS);
  }
}

Status Domain::memory_map(cpu::Vcpu& cpu, Gva argument) {
  xen_memory_map_t map;
  if (!get(cpu, argument, map)) return fail(XEN_EFAULT);
  if (map.nr_entries < 1) return fail(XEN_EINVAL);
  const E820Entry all{0, layout_.pages() * kPageSize, 1};
  if (!put(cpu, address_in(map.buffer), all)) return fail(XEN_EFAULT);
  map.nr_entries = 1;
  return put(cpu, argument, map) ? 0 : fail(XEN_EFAULT);
}

// The balloon: frames that nothing maps are given back, and come again. Returns how many extents were done, as Xen
// does; a guest that passes one which cannot be sees a smaller number.
Status Domain::reservation(cpu::Vcpu& cpu, u64 command, Gva argument) {
  xen_memory_reservation_t r;
  if (!get(cpu, argument, r)) return fail(XEN_EFAULT);
  if (!self(r.domid)) return fail(XEN_EPERM);
  if (r.nr_extents > kMostExtents || r.extent_order > 9) return fail(XEN_EINVAL);
  const Gva list = address_in(r.extent_start);
  const u64 operation = command & ((1 << kExtentShift) - 1);
  const bool gives = operation == XENMEM_decrease_reservation;
  if (!gives && r.extent_order != 0) return 0;  // contiguous memory is not promised
  u64* m2p = frames_.table(layout_.m2p);
  const Locked locked{*this, cpu};
  u64 done = command >> kExtentShift;
  for (; done < r.nr_extents; done++) {
    u64 number = 0;
    if ((list != Gva{} || operation != XENMEM_increase_reservation) && !get(cpu, list.wrapping_add(done * 8), number))
      break;
    if (!gives) {
      if (released_.empty()) break;
      const Mfn mfn = released_.back();
      if (operation == XENMEM_populate_physmap && number >= layout_.pages()) break;
      if (list != Gva{} && !put(cpu, list.wrapping_add(done * 8), mfn)) break;
      released_.pop_back();
      frames_[mfn].owned = true;
      if (operation == XENMEM_populate_physmap) m2p[mfn.raw] = number;
      continue;
    }
    const u64 count = u64{1} << r.extent_order;
    bool free = true;
    for (u64 i = 0; i < count; i++) {
      const Mfn mfn{number + i};
      free = free && frames_.owned(mfn) && frames_[mfn].refs == 0 && frames_[mfn].types == 0;
    }
    if (!free) break;
    for (u64 i = 0; i < count; i++) {
      const Mfn mfn{number + i};
      frames_[mfn].owned = false;
      m2p[mfn.raw] = kNoMachine;
      released_.push_back(mfn);
    }
  }
  return static_cast<Status>(done);
}

}  // namespace trapline::para::xen
