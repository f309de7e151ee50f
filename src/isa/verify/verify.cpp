#include "isa/verify/verify.h"

#include <signal.h>

#include <cstring>

#include "isa/verify/changes.h"
#include "isa/verify/setups.h"

namespace trapline::isa::verify {

namespace {

constexpr u64 kSystemFlags = 0x3200;  // IF, IOPL
constexpr u64 kRing3Flags = 0x0200;   // IF 1, IOPL 0

// What Linux answers under UMIP: SDM vol. 3A 2.5 leaves it to the kernel, arch/x86/kernel/umip.c chose these.
constexpr u64 kDummyGdt = 0xfffffffffffe0000, kDummyIdt = 0xffffffffffff0000;
constexpr u32 kDummyCr0 = 0x80050033;

struct Trap {
  Effect effect;
  u64 vector;
  int signal;
};
constexpr Trap kTraps[] = {
    {Effect::traps_de, 0, SIGFPE},   {Effect::traps_db, 1, SIGTRAP}, {Effect::traps_bp, 3, SIGTRAP},
    {Effect::traps_of, 4, SIGSEGV},  {Effect::traps_br, 5, SIGSEGV}, {Effect::traps_ud, 6, SIGILL},
    {Effect::traps_np, 11, SIGBUS},  {Effect::traps_ss, 12, SIGBUS}, {Effect::traps_gp, 13, SIGSEGV},
    {Effect::traps_pf, 14, SIGSEGV}, {Effect::traps_ac, 17, SIGBUS},
};

bool trapped(const Observation& seen, Effect e) {
  if (seen.kind != Observation::Kind::signalled) return false;
  if (e == Effect::traps_ud_gp) return trapped(seen, Effect::traps_ud) || trapped(seen, Effect::traps_gp);
  for (const Trap& t : kTraps)
    if (t.effect == e) return seen.trap == t.vector && seen.signal == t.signal;
  return false;
}

bool is_dummy(const Row& row, const Stage& stage, const Observation& seen) {
  // 32-bit code stores four bytes of base; the dummy is cut off likewise.
  const u64 mask = stage.size == CodeSize::bits64 ? ~u64{0} : 0xffffffff;
  u64 base = 0;
  std::memcpy(&base, seen.scratch.data() + 2, sizeof base);
  switch (row.id) {
    case RowId::sgdt:
      return (base & mask) == (kDummyGdt & mask);
    case RowId::sidt:
      return (base & mask) == (kDummyIdt & mask);
    case RowId::smsw:
      return (seen.out.gpr[rax] & 0xffff) == (kDummyCr0 & 0xffff);
    default:
      return changed(stage, seen);
  }
}

// Nothing but RIP moved and nothing was pushed (POPF and IRET pop), and IF and IOPL are those of any process.
bool was_ignored(const Stage& stage, const Observation& seen) {
  if ((seen.out.flags & kSystemFlags) != kRing3Flags || seen.out.gpr[rsp] < stage.in.gpr[rsp]) return false;
  for (u8 reg = 0; reg < 16; reg++)
    if (reg != rsp && stage.in.gpr[reg] != seen.out.gpr[reg]) return false;
  return stage.scratch == seen.scratch;
}

Finding one(const Row& row, CodeSize size, HostFeatures host, std::string_view variant) {
  host.set(Feature::compat, size != CodeSize::bits64);
  Finding found{.row = &row, .size = size, .variant = variant, .features = host, .expected = effect_on(row, host)};
  std::optional<Stage> stage = stage_for(row, size);
  if (!stage) {
    found.happened = "no example in this mode";
    return found;
  }
  found.ran = listing(*stage);
  if (const std::string_view why = not_to_be_run(row, host); !why.empty()) {
    found.happened = why;
    return found;
  }
  stage->cpuid_off = host.has(Feature::cpuid_off);
  stage->tsc_off = host.has(Feature::tsc_off);
  const Observation seen = run(*stage);
  found.happened = describe(row, *stage, seen);
  if (seen.kind == Observation::Kind::not_run) return found;
  found.agreement = fits(row, found.expected, *stage, seen) ? Agreement::agrees : Agreement::differs;
  return found;
}

bool depends_on(const Row& row, Feature f) {
  for (const Alternative& a : row.effect)
    if (a.feature == f) return true;
  return false;
}

// 32-bit and 16-bit code run only where an innocuous instruction does.
bool mode_runs(CodeSize size, HostFeatures host) {
  if (size == CodeSize::bits64) return true;
  const std::optional<Stage> stage = stage_for(row(RowId::pause), size);
  return (host.has(Feature::ia32) || size == CodeSize::bits16) && stage &&
         run(*stage).kind == Observation::Kind::executed;
}

struct ModesThatRun {
  bool bits32, bits16;
};

void append(std::vector<Finding>& out, const Row& row, HostFeatures host, ModesThatRun runs) {
  for (CodeSize size : {CodeSize::bits64, CodeSize::bits32, CodeSize::bits16}) {
    if (!stage_for(row, size)) continue;
    if ((size == CodeSize::bits32 && !runs.bits32) || (size == CodeSize::bits16 && !runs.bits16)) {
      out.push_back({.row = &row, .size = size, .features = host, .happened = "the host runs no such code"});
      continue;
    }
    out.push_back(one(row, size, host, ""));
    HostFeatures variant = host;
    if (depends_on(row, Feature::cpuid_off) && host.has(Feature::cpuid_faulting)) {
      variant.set(Feature::cpuid_off);
      out.push_back(one(row, size, variant, "CPUID faulting on"));
    }
    variant = host;
    if (depends_on(row, Feature::tsc_off) && host.has(Feature::tsc_faulting)) {
      variant.set(Feature::tsc_off);
      out.push_back(one(row, size, variant, "TSC disabled"));
    }
  }
}

ModesThatRun modes_that_run(HostFeatures host) {
  return {mode_runs(CodeSize::bits32, host), mode_runs(CodeSize::bits16, host)};
}

}  // namespace

bool fits(const Row& row, Effect expected, const Stage& stage, const Observation& seen) {
  const bool executed = seen.kind == Observation::Kind::executed;
  if (is_trap(expected)) return trapped(seen, expected);
  switch (expected) {
    case Effect::enters:
      return seen.kind == Observation::Kind::signalled && seen.signal == SIGSYS;
    case Effect::acts:
      return executed;
    case Effect::reveals:
    case Effect::leaves:
      return executed && changed(stage, seen);
    case Effect::answers:
      return executed && is_dummy(row, stage, seen);
    case Effect::ignored:
      return executed && was_ignored(stage, seen);
    default:
      return false;
  }
}

Finding verify(const Row& row, CodeSize size, HostFeatures host) { return one(row, size, host, ""); }

std::vector<Finding> verify_row(const Row& row, HostFeatures host) {
  std::vector<Finding> out;
  append(out, row, host, modes_that_run(host));
  return out;
}

std::vector<Finding> verify_all(HostFeatures host) {
  std::vector<Finding> out;
  const ModesThatRun runs = modes_that_run(host);
  for (const Row& row : table()) append(out, row, host, runs);
  return out;
}

}  // namespace trapline::isa::verify
