#include "isa/verify/verify.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <set>

#include "isa/verify/host_features.h"
#include "isa/verify/setups.h"

namespace trapline::isa::verify {
namespace {

using testing::HasSubstr;

std::string what(const Finding& f) {
  return fmt::format("{} {} {}: expected {}, ran {}: {}", slug(f.row->id), name(f.size), f.variant,
                     isa::name(f.expected), f.ran, f.happened);
}

TEST(Verify, TheHostDoesWhatTheTableSays) {
  unsigned run = 0;
  for (const Finding& f : verify_all(host_features())) {
    EXPECT_NE(f.agreement, Agreement::differs) << what(f);
    if (f.agreement == Agreement::not_run) {
      EXPECT_FALSE(f.happened.empty()) << what(f);
    }
    run += f.agreement == Agreement::agrees;
  }
  EXPECT_GE(run, table().size() - 10);
}

TEST(Verify, EveryRowIsTriedInSomeMode) {
  std::set<RowId> tried;
  for (const Finding& f : verify_all(host_features())) tried.insert(f.row->id);
  for (const Row& r : table()) EXPECT_TRUE(tried.contains(r.id)) << slug(r.id);
}

TEST(Verify, RowsThatSayTheWrongThingAreFoundOut) {
  const HostFeatures host = host_features();
  const std::pair<RowId, Effect> lies[] = {
      {RowId::popf, Effect::traps_gp},  {RowId::cli, Effect::ignored},    {RowId::cli, Effect::traps_ud},
      {RowId::pause, Effect::reveals},  {RowId::int3, Effect::traps_db},  {RowId::undefined, Effect::acts},
      {RowId::syscall, Effect::leaves}, {RowId::rdtsc, Effect::ignored},  {RowId::mov_from_cs, Effect::enters},
      {RowId::pushf, Effect::ignored},  {RowId::mov_to_cr, Effect::acts},
  };
  for (const auto& [id, effect] : lies) {
    Row row = isa::row(id);
    row.effect = {{{Feature::always, true, effect}}};
    const Finding f = verify(row, CodeSize::bits64, host);
    EXPECT_EQ(f.agreement, Agreement::differs) << what(f);
  }
}

TEST(Verify, FeaturesThatAProcessCanSwitchAreTriedBothWays) {
  const HostFeatures host = host_features();
  unsigned off = 0, on = 0;
  for (const Finding& f : verify_row(isa::row(RowId::rdtsc), host))
    if (f.agreement != Agreement::not_run) (f.variant.empty() ? on : off)++;
  EXPECT_GE(on, 1u);
  EXPECT_EQ(off, host.has(Feature::tsc_faulting) ? on : 0);
  if (!host.has(Feature::cpuid_faulting)) GTEST_SKIP() << "no CPUID faulting";
  bool trapped = false;
  for (const Finding& f : verify_row(isa::row(RowId::cpuid), host))
    trapped |= !f.variant.empty() && f.agreement == Agreement::agrees && f.expected == Effect::traps_gp;
  EXPECT_TRUE(trapped);
}

Observation run_code(std::initializer_list<u8> bytes, CodeSize size = CodeSize::bits64) {
  Stage stage;
  stage.size = size;
  stage.set_code(std::vector<u8>{bytes});
  return run(stage);
}

TEST(VerifyChild, ReportsRegistersFlagsScratchAndStack) {
  Stage stage;
  stage.set_code(std::vector<u8>{0xab, 0x50, 0xf9});  // stosd; push rax; stc
  stage.in.gpr[rax] = 0x1122334455667788;
  stage.in.gpr[r15] = 0x99;
  const Observation o = run(stage);
  ASSERT_EQ(o.kind, Observation::Kind::executed);
  EXPECT_EQ(o.out.gpr[rdi], stage.in.gpr[rdi] + 4);
  EXPECT_EQ(o.out.gpr[rsp], stage.in.gpr[rsp] - 8);
  EXPECT_EQ(o.out.gpr[r15], 0x99u);
  EXPECT_EQ(o.stack[0], 0x1122334455667788u);
  EXPECT_EQ(o.scratch[0], 0x88);
  EXPECT_EQ(o.scratch[4], 0x5a);
  EXPECT_EQ(o.out.flags & 1, 1u);
}

TEST(VerifyChild, RunsThirtyTwoBitCode) {
  if (!host_features().has(Feature::ia32)) GTEST_SKIP() << "the kernel runs no 32-bit code";
  // 48 is DEC EAX here and a REX prefix in 64-bit code: dec eax; mov [edi], eax
  Stage stage;
  stage.size = CodeSize::bits32;
  stage.set_code(std::vector<u8>{0x48, 0x89, 0x07});
  stage.in.gpr[rax] = 5;
  const Observation o = run(stage);
  ASSERT_EQ(o.kind, Observation::Kind::executed);
  EXPECT_EQ(o.out.gpr[rax], 4u);
  EXPECT_EQ(o.scratch[0], 4);
}

TEST(VerifyChild, HasNoSystemCallsAndNoWritableCode) {
  const Observation call = run_code({0x0f, 0x05});
  ASSERT_EQ(call.kind, Observation::Kind::signalled);
  EXPECT_EQ(call.signal, SIGSYS);
  const Observation write = run_code({0x88, 0x05, 0x00, 0x00, 0x00, 0x00});  // mov [rip], al
  ASSERT_EQ(write.kind, Observation::Kind::signalled);
  EXPECT_EQ(write.signal, SIGSEGV);
  EXPECT_EQ(write.trap, 14u);
}

TEST(VerifyChild, IsEndedWhenItHangs) {
  const Observation o = run_code({0xeb, 0xfe});
  EXPECT_EQ(o.kind, Observation::Kind::died);
  EXPECT_EQ(o.signal, SIGALRM);
}

TEST(VerifyChild, SurvivesTheLossOfItsStackAndSegmentBase) {
  EXPECT_EQ(run_code({0x31, 0xe4}).kind, Observation::Kind::executed);  // xor esp, esp
  const Observation o = run_code({0x31, 0xe4, 0x50});                   // xor esp, esp; push rax
  ASSERT_EQ(o.kind, Observation::Kind::signalled);
  EXPECT_EQ(o.trap, 14u);
  EXPECT_EQ(run_code({0x31, 0xc0, 0x8e, 0xe0, 0x0f, 0x0b}).signal, SIGILL);  // mov fs, 0; ud2
}

TEST(Describe, NamesTheTrapOrTheChange) {
  const Row& popf = isa::row(RowId::popf);
  const std::optional<Stage> stage = stage_for(popf, CodeSize::bits64);
  ASSERT_TRUE(stage);
  EXPECT_THAT(describe(popf, *stage, run(*stage)), HasSubstr("IF 1, IOPL 0"));
  const Row& cli = isa::row(RowId::cli);
  EXPECT_THAT(describe(cli, *stage_for(cli, CodeSize::bits64), run(*stage_for(cli, CodeSize::bits64))),
              HasSubstr("#GP"));
}

}  // namespace
}  // namespace trapline::isa::verify
