#include "engine/patch/page_scan.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "isa/insn.h"

namespace trapline::engine::patch {

namespace {

enum class Finding : u8 { nothing, reveals, harms };

// Of the bytes behind 0F; `left` of them are there. SDM Vol. 2, APM Vol. 3.
Finding look(const u8* at, std::size_t left) {
  if (left == 0) return Finding::nothing;
  switch (at[0]) {
    case 0x00:  // SLDT, STR, VERR, VERW
    case 0x02:  // LAR
    case 0x03:  // LSL
    case 0xa2:  // CPUID
    case 0x34:  // SYSENTER: its return address is lost on Intel's
      return Finding::reveals;
    case 0x38:  // ENQCMD, ENQCMDS
      return left >= 2 && at[1] == 0xf8 ? Finding::harms : Finding::nothing;
    case 0xc7:  // RDPID is F3 0F C7 /7 with a register; without F3 it is RDSEED
      return left >= 2 && at[1] >= 0xf8 ? Finding::reveals : Finding::nothing;
    case 0x01:
      break;
    default:
      return Finding::nothing;
  }
  if (left < 2) return Finding::nothing;
  switch (at[1]) {
    case 0xc1:  // VMCALL, VMMCALL: they may reach whatever runs this host
    case 0xd9:
    case 0xd4:  // VMFUNC
    case 0xef:  // WRPKRU
    case 0xfa:  // MONITORX, MWAITX
    case 0xfb:
    case 0xfd:  // RDPRU
      return Finding::harms;
    case 0xd0:  // XGETBV
    case 0xee:  // RDPKRU
    case 0xf9:  // RDTSCP
      return Finding::reveals;
    default:  // SGDT, SIDT with memory; SMSW
      return ((at[1] >> 3 & 7) <= 1 && at[1] < 0xc0) || (at[1] >> 3 & 7) == 4 ? Finding::reveals : Finding::nothing;
  }
}

bool reveals(ZydisMnemonic mnemonic, const HostLacks& host) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_RDPKRU:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SMSW:
      return true;
    case ZYDIS_MNEMONIC_XGETBV:
      return !host.xcr0_same;
    default:
      return false;
  }
}

// Is the 0F at `at` the opcode of a real instruction that shows the host? x86 code falls into step soon, wherever one
// begins to decode it: most of a number of beginnings must agree. Its first byte; or none (~0).
u32 real_site(std::span<const u8, kPageSize> page, u32 at, const HostLacks& host) {
  constexpr u32 kBefore = 64, kStarts = 16;
  const u32 first = at < kBefore ? 0 : at - kBefore;
  // The ways from the beginnings soon run together: each byte is decoded once.
  // 0: not looked at; else one more than where the way from here arrives, or `missed`.
  constexpr u32 missed = ~0u;
  std::array<u32, kBefore + 1> arrives{};
  const auto follow = [&](u32 here) {
    std::array<u32, kBefore + 1> way;
    u32 length = 0, end = missed;
    for (; here <= at; length++) {
      if (const u32 known = arrives[here - first]) {
        end = known;
        break;
      }
      way[length] = here - first;
      isa::Insn insn;
      const bool ok = isa::decode(page.data() + here, kPageSize - here, isa::CodeSize::bits64, host.vendor, insn) ==
                      isa::DecodeStatus::ok;
      const u32 next = here + (ok ? insn.length : 1);
      if (ok && next > at) {
        end = reveals(insn.mnemonic, host) ? here + 1 : missed;
        length++;
        break;
      }
      here = next;
    }
    while (length > 0) arrives[way[--length]] = end;
    return end;
  };
  u32 votes = 0, starts = 0, site = ~0u;
  for (u32 start = first; start < first + kStarts && start <= at; start++, starts++)
    if (const u32 end = follow(start); end != missed) votes++, site = end - 1;
  return votes * 2 > starts ? site : ~0u;
}

}  // namespace

PageScan scan_page(std::span<const u8, kPageSize> page, const HostLacks& host) {
  PageScan scan;
  const u8 *const begin = page.data(), *const end = begin + kPageSize;
  for (const u8* at = begin; (at = static_cast<const u8*>(std::memchr(at, 0x0f, static_cast<std::size_t>(end - at))));
       at++) {
    const Finding finding = look(at + 1, static_cast<std::size_t>(end - at - 1));
    if (finding == Finding::harms) {
      scan.refused = true;
      return scan;
    }
    if (finding == Finding::nothing) continue;
    const u32 site = real_site(page, static_cast<u32>(at - begin), host);
    if (site != ~0u && (scan.sites.empty() || scan.sites.back() != site)) scan.sites.push_back(static_cast<u16>(site));
  }
  return scan;
}

bool border_runs(std::span<const u8> bytes) {
  for (std::size_t i = 0; i < bytes.size(); i++)
    if (bytes[i] == 0x0f && look(bytes.data() + i + 1, bytes.size() - i - 1) == Finding::harms) return false;
  return true;
}

}  // namespace trapline::engine::patch
