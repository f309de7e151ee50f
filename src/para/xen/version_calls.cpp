// xen_version and console_io.
#include "base/trace.h"
#include "para/xen/console.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"

namespace trapline::para::xen {

namespace {

// The version whose public headers this is written against.
constexpr u64 kVersion = 4 << 16 | 17;

template <std::size_t N>
Status put_text(cpu::Vcpu& cpu, Gva to, const char* text) {
  char buffer[N] = {};
  std::strncpy(buffer, text, N - 1);
  return put(cpu, to, buffer) ? 0 : fail(XEN_EFAULT);
}

}  // namespace

Status Domain::xen_version(cpu::Vcpu& cpu, u64 command, Gva argument) {
  switch (command) {
    case XENVER_version:  // also how a guest lets pending events in: hypercall() looks for them
      return static_cast<Status>(kVersion);
    case XENVER_extraversion:
      return put_text<XEN_EXTRAVERSION_LEN>(cpu, argument, ".trapline");
    case XENVER_compile_info: {
      xen_compile_info_t info{};
      std::strncpy(info.compiler, "c++", sizeof info.compiler - 1);
      std::strncpy(info.compile_by, "trapline", sizeof info.compile_by - 1);
      return put(cpu, argument, info) ? 0 : fail(XEN_EFAULT);
    }
    case XENVER_capabilities:
      return put_text<XEN_CAPABILITIES_INFO_LEN>(cpu, argument, "xen-3.0-x86_64 ");
    case XENVER_changeset:
      return put_text<XEN_CHANGESET_INFO_LEN>(cpu, argument, "unavailable");
    case XENVER_platform_parameters: {
      const xen_platform_parameters_t p{kHypervisorStart.raw};
      return put(cpu, argument, p) ? 0 : fail(XEN_EFAULT);
    }
    case XENVER_get_features: {
      xen_feature_info_t info;
      if (!get(cpu, argument, info)) return fail(XEN_EFAULT);
      info.submap = info.submap_idx == 0 ? 1u << XENFEAT_pae_pgdir_above_4gb | 1u << XENFEAT_mmu_pt_update_preserve_ad |
                                               1u << XENFEAT_highmem_assist | 1u << XENFEAT_gnttab_map_avail_bits
                                         : 0;
      if (info.submap_idx >= XENFEAT_NR_SUBMAPS) return fail(XEN_EINVAL);
      return put(cpu, argument, info) ? 0 : fail(XEN_EFAULT);
    }
    case XENVER_pagesize:
      return static_cast<Status>(kPageSize);
    case XENVER_guest_handle: {
      const xen_domain_handle_t handle = {0x74, 0x72, 0x61, 0x70};
      return put(cpu, argument, handle) ? 0 : fail(XEN_EFAULT);
    }
    case XENVER_commandline:
      return put_text<sizeof(xen_commandline_t)>(cpu, argument, "");
    case XENVER_build_id:
      return fail(XEN_ENODATA);
    default:
      return fail(XEN_ENOSYS);
  }
}

// The emergency console, by which a kernel speaks before it has found the other.
Status Domain::console_io(cpu::Vcpu& cpu, u64 command, u64 count, Gva buffer) {
  if (command == CONSOLEIO_read) return 0;
  if (command != CONSOLEIO_write) return fail(XEN_ENOSYS);
  count &= 0x7fffffff;
  char text[256];
  for (u64 done = 0; done < count;) {
    const u64 n = std::min<u64>(sizeof text, count - done);
    if (!copy_from(cpu, buffer.wrapping_add(done), text, n)) return fail(XEN_EFAULT);
    console_->emit(cpu, {text, n});
    done += n;
  }
  return 0;
}

}  // namespace trapline::para::xen
