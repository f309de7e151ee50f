// Requests as a hostile core may send them: whatever the fields, the chipset sees only what a CPU could do.
#include "monitor/service.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace trapline::monitor {
namespace {

using channel::Request;
using channel::RequestKind;

struct Fakes : devices::TimeSource, machine::InterruptSink, machine::PowerSink, machine::SerialBackend {
  u64 now_ns() const override { return 1000; }
  u64 wall_clock_seconds() const override { return 0; }
  void msi(Gpa, u32) override {}
  void extint(bool) override {}
  void nmi() override {}
  void power_off() override { powered_off = true; }
  void reset() override {}
  void debug_exit(u32 v) override { exit_value = v; }
  void write(u8 byte) override { text.push_back(static_cast<char>(byte)); }
  std::string text;
  bool powered_off = false;
  u32 exit_value = 0;
};

class ServiceTest : public testing::Test {
 protected:
  bool send(RequestKind kind, u16 port, u16 size, u32 count = 0, u64 v = 0) {
    Request r;
    r.kind = static_cast<u32>(kind), r.port = port, r.size = size, r.count = count, r.value = v;
    return serve(chipset, r, bulk.data(), &value);
  }
  machine::Config config;
  Fakes fakes;
  machine::Chipset chipset{machine::ChipsetParts{config, fakes, fakes, fakes, fakes}};
  std::vector<u8> bulk = std::vector<u8>(channel::kBulkBytes + 64, 0xa5);
  u64 value = 0;
};

TEST_F(ServiceTest, SerialOutputArrives) {
  for (char c : std::string{"hi"}) EXPECT_TRUE(send(RequestKind::port_write, 0x3f8, 1, 0, static_cast<u8>(c)));
  std::memcpy(bulk.data(), "there", 5);
  EXPECT_TRUE(send(RequestKind::port_write_many, 0x3f8, 1, 5));
  EXPECT_EQ(fakes.text, "hithere");
}

TEST_F(ServiceTest, SizesAndCountsOutOfRangeAreRefused) {
  for (u16 size : {0, 3, 5, 8, 255, 65535}) {
    EXPECT_FALSE(send(RequestKind::port_read, 0x3f8, size)) << size;
    EXPECT_FALSE(send(RequestKind::port_write_many, 0x3f8, size, 1)) << size;
    EXPECT_EQ(value, ~u64{0});
  }
  EXPECT_FALSE(send(RequestKind::mmio_read, 0, 9));
  EXPECT_FALSE(send(RequestKind::mmio_write, 0, 0));
  EXPECT_FALSE(send(RequestKind::port_read_many, 0x3f8, 4, channel::kBulkBytes / 4 + 1));
  EXPECT_FALSE(send(RequestKind::port_read_many, 0x3f8, 4, 0xffffffff));
  EXPECT_TRUE(send(RequestKind::port_read_many, 0x60, 4, channel::kBulkBytes / 4));
  for (std::size_t i = channel::kBulkBytes; i < bulk.size(); i++) EXPECT_EQ(bulk[i], 0xa5);
}

TEST_F(ServiceTest, UnknownKindsAreRefused) {
  constexpr u32 kBehind = static_cast<u32>(RequestKind::numeric_error) + 1;
  for (u32 kind : {0u, kBehind, 0x80000000u, ~0u}) EXPECT_FALSE(send(static_cast<RequestKind>(kind), 0, 1));
}

TEST_F(ServiceTest, RandomRequestsDoNoHarm) {
  std::mt19937_64 random{20};
  for (int i = 0; i < 50'000; i++) {
    Request r;
    r.kind = static_cast<u32>(random() % 14), r.port = static_cast<u16>(random()),
    r.size = static_cast<u16>(random() % 10);
    r.count = static_cast<u32>(random() % 64), r.address = Gpa{0xfec00000 + random() % 0x200000}, r.value = random();
    serve(chipset, r, bulk.data(), &value);
  }
  for (std::size_t i = channel::kBulkBytes; i < bulk.size(); i++) ASSERT_EQ(bulk[i], 0xa5);
}

}  // namespace
}  // namespace trapline::monitor
