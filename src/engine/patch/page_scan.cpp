#include "engine/patch/page_scan.h"

#include <cstring>

namespace trapline::engine::patch {

namespace {

// Behind 0F. SDM Vol. 2, APM Vol. 3.
bool forbidden(u8 second, const u8* rest, std::size_t left, const HostLacks& host) {
  switch (second) {
    case 0xa2:  // CPUID
      return !host.cpuid_faulting;
    case 0x34:  // SYSENTER: its return address is lost
      return true;
    case 0x01: {
      if (left < 1) return false;
      switch (rest[0]) {
        case 0xc1:  // VMCALL, VMMCALL: they may reach whatever runs this host
        case 0xd9:
        case 0xd4:  // VMFUNC
        case 0xef:  // WRPKRU
        case 0xfd:  // RDPRU
        case 0xfa:  // MONITORX, MWAITX
        case 0xfb:
        case 0xf9:  // RDTSCP shows the host's CPU number
          return true;
        case 0xd0:  // XGETBV
          return !host.xcr0_same;
        default:
          return false;
      }
    }
    case 0xc7:  // RDPID is F3 0F C7 /7 with a register: the F3 may be elsewhere, RDSEED is the same without
      return left >= 1 && (rest[0] & 0xf8) == 0xf8;
    case 0x38:  // ENQCMD, ENQCMDS
      return left >= 1 && rest[0] == 0xf8;
    default:
      return false;
  }
}

}  // namespace

bool may_run_directly(std::span<const u8> code, const HostLacks& host) {
  const u8* at = code.data();
  const u8* const end = at + code.size();
  while ((at = static_cast<const u8*>(std::memchr(at, 0x0f, static_cast<std::size_t>(end - at)))) != nullptr) {
    at++;
    if (at == end) return true;
    if (forbidden(*at, at + 1, static_cast<std::size_t>(end - at - 1), host)) return false;
  }
  return true;
}

}  // namespace trapline::engine::patch
