#include "engine/patch/page_scan.h"

#include <emmintrin.h>

#include <algorithm>
#include <array>
#include <bit>

#include "isa/decode_memo.h"

namespace trapline::engine::patch {

namespace {

// `hints`: shows the host too, but its bytes are small numbers, which data and operands are full of, and programs have
// no use for it: where it is not certain to be an instruction it is taken for none. So is what CPUID does not offer:
// the kernel's vDSO has it among the alternatives to its own code, which nobody runs.
enum class Finding : u8 { nothing, hints, reveals, harms };

// Bit i: the byte at `at` + i is 0F, and `look` knows the one behind it. `at` + 17 bytes are read.
u32 candidates(const u8* at) {
  const auto load = [](const u8* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); };
  const __m128i second = load(at + 1);
  const auto is = [&](char byte) { return _mm_cmpeq_epi8(second, _mm_set1_epi8(byte)); };
  const __m128i to_3 = _mm_cmpeq_epi8(_mm_min_epu8(second, _mm_set1_epi8(3)), second);
  const __m128i known = to_3 | is(0x31) | is(0x34) | is(0x38) | is(static_cast<char>(0xa2)) |
                        is(static_cast<char>(0xae)) | is(static_cast<char>(0xc7));
  return static_cast<u32>(_mm_movemask_epi8(_mm_cmpeq_epi8(load(at), _mm_set1_epi8(0x0f)) & known));
}

// Could `meant` (below) hold for a memory operand with this ModRM and SIB byte?
bool on_the_stack(u8 modrm, u8 sib) {
  constexpr u8 kSib = 4, kBp = 5;
  const u8 rm = modrm & 7;
  return rm == kSib ? (sib >> 3 & 7) == 4 && (sib & 6) == 4 : rm == kBp && modrm >= 0x40;
}

// ModRM /`reg` with memory.
bool saves(u8 modrm, u8 reg) { return modrm < 0xc0 && (modrm >> 3 & 7) == reg; }

// Of the bytes behind 0F; `left` of them are there. SDM Vol. 2, APM Vol. 3.
Finding look(const u8* at, std::size_t left, const HostLacks& host) {
  const Finding shows_aux = host.aux_offered ? Finding::reveals : Finding::hints;
  if (left == 0) return Finding::nothing;
  switch (at[0]) {
    // Nobody means these with memory; their bytes stand in every second page, in distances above all.
    case 0x00:  // SLDT, STR, VERR, VERW; 2 and 3 are privileged, 6 and 7 undefined
      return left >= 2 && at[1] >= 0xc0 && !(at[1] & 0x10) ? Finding::hints : Finding::nothing;
    case 0x02:  // LAR
    case 0x03:  // LSL
      return left >= 2 && at[1] >= 0xc0 ? Finding::hints : Finding::nothing;
    case 0x34:  // SYSENTER: its return address is lost on Intel's
      return Finding::hints;
    case 0x31:  // RDTSC
      return host.repeatable ? Finding::reveals : Finding::nothing;
    case 0xa2:  // CPUID. Where it faults, INT3 in its place is still a fifth of the price: only the outer host can see
                // that it must fault.
      return host.cpuid_faults ? Finding::hints : Finding::reveals;
    case 0x38:  // ENQCMD, ENQCMDS
      return left >= 2 && at[1] == 0xf8 ? Finding::harms : Finding::nothing;
    case 0xc7:  // RDPID is F3 0F C7 /7 with a register; without F3 it is RDSEED
      if (left < 2) return Finding::nothing;
      if (host.repeatable && (at[1] >= 0xf0 || saves(at[1], 4))) return Finding::reveals;  // RDRAND, RDSEED, XSAVEC
      return at[1] >= 0xf8 ? shows_aux : Finding::nothing;
    case 0xae:  // XSAVE, XSAVEOPT
      return host.repeatable && left >= 2 && (saves(at[1], 4) || saves(at[1], 6)) ? Finding::reveals : Finding::nothing;
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
    case 0xd0:  // XGETBV; with ECX 1 it shows which components are in use
    case 0xee:  // RDPKRU
      return Finding::reveals;
    case 0xf9:  // RDTSCP
      return shows_aux;
    default:  // SGDT, SIDT with memory; SMSW
      if (const u8 reg = at[1] >> 3 & 7; reg > 1 && reg != 4) return Finding::nothing;
      if (at[1] >= 0xc0) return (at[1] >> 3 & 7) == 4 ? Finding::hints : Finding::nothing;
      return left >= 3 && on_the_stack(at[1], at[2]) ? Finding::hints : Finding::nothing;
  }
}

bool saves_all(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
      return true;
    default:
      return false;
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
      return !host.xcr0_same || host.repeatable;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
      return host.repeatable;
    default:
      return host.repeatable && saves_all(mnemonic);
  }
}

using Page = std::span<const u8, kPageSize>;

bool decode(Page page, u32 at, const HostLacks& host, isa::Insn& insn) {
  isa::Raw raw;
  return isa::decode_often(page.data() + at, kPageSize - at, isa::CodeSize::bits64, host.vendor, insn, raw) ==
         isa::DecodeStatus::ok;
}

// Where an instruction has the 0F at a given place for its opcode: how many of a number of ways there meet it, and its
// first byte. x86 code falls into step soon, wherever one begins to decode it.
struct Votes {
  static constexpr u32 kWays = 16, kMost = 14;
  u32 site = ~0u, given = 0, ways = 0;
  // An instruction that began on the page before ends within 14 bytes: one of these ways is the CPU's.
  bool all() const { return ways == kWays && given == ways; }
  bool most() const { return ways == kWays && given >= kMost; }
};

// `to_the_end`: though there cannot be `most` any more.
Votes vote(Page page, u32 at, bool to_the_end, const HostLacks& host) {
  constexpr u32 kBefore = 64;
  const u32 first = at < kBefore ? 0 : at - kBefore;
  // The ways soon run together: each byte is decoded once. 0: not looked at; else one more than where the way from here
  // arrives, or `missed`.
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
      const bool ok = decode(page, here, host, insn);
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
  Votes votes;
  for (u32 start = first; start < first + Votes::kWays && start <= at; start++, votes.ways++) {
    if (const u32 end = follow(start); end != missed) votes.given++, votes.site = end - 1;
    const u32 missing = start + 1 - first - votes.given;
    if (!to_the_end && missing > Votes::kWays - Votes::kMost) break;
  }
  return votes;
}

// Compilers write such instructions. Data, decoded, is full of others: zeros, privileged ones, odd prefixes.
bool plausible(const isa::Insn& insn) {
  if (insn.bytes[0] == 0 && insn.bytes[1] == 0) return false;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
      return true;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF:
    case ZYDIS_MNEMONIC_CMC:
      return false;
    default:
      break;
  }
  for (const u8 byte : insn.bytes) {
    if (byte == 0x26 || byte == 0x2e || byte == 0x36) return false;  // ES, CS, SS: no use in 64-bit code
    if (byte != 0x66 && byte != 0x67 && byte != 0xf2 && byte != 0xf3 && byte != 0xf0) break;
  }
  return !insn.sensitive;
}

// With memory these are small numbers in tables that lie among code, as SBCL's and GHC's do; who means to ask has the
// answer stored on the stack.
bool meant(const isa::Insn& insn) {
  constexpr u8 kRsp = 4, kRbp = 5;
  const bool memory =
      std::ranges::any_of(insn.op, [](const isa::Operand& o) { return o.kind == isa::Operand::Kind::mem; });
  if (!memory || saves_all(insn.mnemonic)) return true;
  return (insn.mnemonic == ZYDIS_MNEMONIC_SGDT || insn.mnemonic == ZYDIS_MNEMONIC_SIDT ||
          insn.mnemonic == ZYDIS_MNEMONIC_SMSW) &&
         (insn.mem.base == kRsp || insn.mem.base == kRbp) && insn.mem.index == isa::kNoReg;
}

// Is what lies around a site code, and in step with it? All before it as far as one looks, and what follows until it
// jumps away. Where the page begins too soon before it, all ways must have met it.
bool among_code(Page page, const Votes& votes, const HostLacks& host) {
  constexpr u32 kBefore = 256, kEnough = 24, kBehind = 12;
  const u32 site = votes.site;
  u32 here = site < kBefore ? 0 : site - kBefore, streak = 0;
  bool in_step = true;  // as far as the page goes
  while (here < site) {
    isa::Insn insn;
    const bool good = decode(page, here, host, insn) && plausible(insn);
    streak = good ? streak + 1 : 0;
    in_step = in_step && (good || here < 16);
    here += insn.length ? insn.length : 1u;
  }
  const bool enough = streak >= kEnough;
  if (here != site || (!enough && (site < 64 || site >= kBefore || !in_step || !votes.all()))) return false;
  here = site;
  for (u32 i = 0; i < (enough ? kBehind : kEnough); i++) {
    isa::Insn insn;
    // Too close to the page's end to tell it from data between functions: GHC has its tables there.
    if (!decode(page, here, host, insn) || !(i == 0 ? meant(insn) : plausible(insn))) return false;
    if (enough && (insn.mnemonic == ZYDIS_MNEMONIC_RET || insn.mnemonic == ZYDIS_MNEMONIC_JMP)) return true;
    here += insn.length;
  }
  return true;
}

// Replaces what has its opcode at `at`, where it is certain to be an instruction. False: it may be one, and reveals.
bool judge(Page page, u32 at, bool reveals, const HostLacks& host, PageScan& scan) {
  const Votes votes = vote(page, at, reveals, host);
  if (votes.given == 0) return true;
  if (!votes.most() || !among_code(page, votes, host)) return !reveals;
  if (scan.sites.empty() || scan.sites.back() != votes.site) scan.sites.push_back(static_cast<u16>(votes.site));
  return true;
}

}  // namespace

PageScan scan_page(std::span<const u8, kPageSize> page, const HostLacks& host) {
  constexpr u32 kLine = 16;
  PageScan scan;
  std::array<u8, kLine + 1> last{};  // with a byte that is none behind it
  std::copy(page.end() - kLine, page.end(), last.begin());
  for (u32 line = 0; line < kPageSize; line += kLine) {
    u32 found = candidates(line + kLine < kPageSize ? page.data() + line : last.data());
    for (; found != 0; found &= found - 1) {
      const u32 at = line + static_cast<u32>(std::countr_zero(found));
      const Finding finding = look(page.data() + at + 1, kPageSize - at - 1, host);
      if (finding == Finding::nothing) continue;
      if (finding != Finding::harms && judge(page, at, finding == Finding::reveals, host, scan)) continue;
      scan.refused = true;
      return scan;
    }
  }
  return scan;
}

bool border_runs(std::span<const u8> bytes) {
  for (std::size_t i = 0; i < bytes.size(); i++)
    if (bytes[i] == 0x0f && look(bytes.data() + i + 1, bytes.size() - i - 1, HostLacks{}) == Finding::harms)
      return false;
  return true;
}

}  // namespace trapline::engine::patch
