#include "channel/launch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace trapline::channel {
namespace {

Launch sample() {
  Launch l;
  l.ram_fd = 5, l.kernel_fd = 6, l.trace_fd = 9;
  l.kernel_name = "vmlinuz";
  l.command_line = std::string("console=ttyS0 \xff\x00 bytes", 23);
  l.cpu_features = "-avx";
  l.modules = {{7, "a.bin", "first"}, {8, "b.bin", ""}};
  l.memory = 4 * GiB;
  l.cpus = 3;
  l.trace_mask = 0x41;
  l.para_kvm = false;
  l.instructions_clock = true;
  l.names_fd = 10;
  l.devices_fd = 11;
  l.verify = l.dump_host = true;
  l.miscompile_at = Gva{0xffffffff81000000};
  l.miscompile_how = 2;
  return l;
}

TEST(Launch, ComesBackAsItWas) {
  const auto l = unpack(pack(sample()));
  ASSERT_TRUE(l);
  EXPECT_EQ(l->ram_fd, 5);
  EXPECT_EQ(l->initrd_fd, -1);
  EXPECT_EQ(l->devices_fd, 11);
  EXPECT_EQ(l->command_line, sample().command_line);
  ASSERT_EQ(l->modules.size(), 2u);
  EXPECT_EQ(l->modules[0].fd, 7);
  EXPECT_EQ(l->modules[0].name, "a.bin");
  EXPECT_EQ(l->modules[0].arguments, "first");
  EXPECT_EQ(l->memory, 4 * GiB);
  EXPECT_FALSE(l->para_kvm);
  EXPECT_TRUE(l->instructions_clock);
  EXPECT_FALSE(l->debugger);
  EXPECT_EQ(l->names_fd, 10);
  EXPECT_TRUE(l->verify);
  EXPECT_FALSE(l->dump_guest);
  EXPECT_TRUE(l->dump_host);
  EXPECT_EQ(l->miscompile_at, Gva{0xffffffff81000000});
  EXPECT_EQ(l->miscompile_how, 2u);
}

TEST(Launch, RefusesEveryTruncationAndExtraBytes) {
  auto bytes = pack(sample());
  for (std::size_t n = 0; n < bytes.size(); n++) EXPECT_FALSE(unpack({bytes.data(), n})) << n;
  bytes.push_back(0);
  EXPECT_FALSE(unpack(bytes));
}

TEST(Launch, RefusesWhatIsNeitherTrueNorFalse) {
  Launch with = sample(), without = sample();
  with.patch_traps = true, without.patch_traps = false;
  auto bytes = pack(with);
  const auto other = pack(without);
  const auto at = std::mismatch(bytes.begin(), bytes.end(), other.begin()).first;
  ASSERT_EQ(*at, 1);
  *at = 2;
  EXPECT_FALSE(unpack(bytes));
}

TEST(Launch, RefusesLengthsBeyondTheEnd) {
  auto bytes = pack(sample());
  for (std::size_t i = 16; i + 4 <= bytes.size(); i++) {
    auto hurt = bytes;
    const u32 huge = 0xffffffff;
    std::memcpy(&hurt[i], &huge, 4);
    (void)unpack(hurt);  // any answer will do; not a crash
  }
}

}  // namespace
}  // namespace trapline::channel
