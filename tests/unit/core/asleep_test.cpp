#include "core/asleep.h"

#include <gtest/gtest.h>

namespace trapline::core {
namespace {

TEST(Asleep, WhatWakesIsWhatIsHeard) {
  using namespace cpu::attention;
  cpu::Vcpu cpu;
  cpu.activity = cpu::Activity::halted;
  EXPECT_EQ(what_wakes(cpu), init | unhalt | any_nmi);
  cpu.nmi_blocked = true;  // its handler halts: another NMI waits for an IRET that never comes
  EXPECT_EQ(what_wakes(cpu), init | unhalt);
  cpu.nmi_blocked = false;
  cpu.activity = cpu::Activity::wait_for_sipi;
  EXPECT_EQ(what_wakes(cpu), init | sipi) << "an NMI to a processor that waits for SIPI is dropped";
}

}  // namespace
}  // namespace trapline::core
