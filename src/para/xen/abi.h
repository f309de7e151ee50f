// Xen's own description of its interface (package libxen-dev): every structure, number and flag that a guest sees comes
// from there. Names that clash with nothing stay in the global namespace, as the headers are C.
#pragma once

// The newest interface that a guest may be built against; structures only ever grew.
#define __XEN_INTERFACE_VERSION__ 0x00040e00

#include <xen/callback.h>
#include <xen/errno.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/nmi.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/xen.h>
// After xen.h
#include <xen/arch-x86/cpuid.h>
#include <xen/elfnote.h>
#include <xen/io/blkif.h>
#include <xen/io/console.h>
#include <xen/io/netif.h>
#include <xen/io/protocols.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

#include "base/types.h"

namespace trapline::para::xen {

// What a hypercall returns in RAX: 0 or more, or minus one of Xen's error numbers.
using Status = i64;
constexpr Status fail(xen_errno error) { return -static_cast<Status>(error); }

// The segments that Xen keeps for guests in its part of the GDT (xen/arch-x86/xen-x86_64.h).
inline constexpr u16 kKernelCs = FLAT_KERNEL_CS64, kKernelSs = FLAT_KERNEL_SS64, kFlatCs32 = FLAT_RING3_CS32,
                     kFlatDs32 = FLAT_RING3_DS32, kFlatSs = FLAT_RING3_SS64;

// As which domain the guest runs, and the one whose back ends it speaks to.
inline constexpr domid_t kDomain = 1, kBackDomain = 0;

}  // namespace trapline::para::xen
