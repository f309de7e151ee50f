// The core's answers to writes by devices, and doorbells that are posted.
#include "core/device_writes.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "channel/doorbell.h"
#include "core/local_bus.h"
#include "cpu/mmu.h"
#include "cpu/vcpu.h"

namespace trapline::core {
namespace {

TEST(DeviceWrites, CodeUnderThemIsForgottenAndOtherCodeIsNot) {
  auto ram = std::move(*GuestMemory::anonymous(2 * MiB));
  std::vector<std::atomic<u64>> lines(ram.frames());
  cpu::CodeMap code{ram, lines.data()};
  cpu::Vcpu cpu;
  std::atomic<u32> attention{0};
  cpu.attention = &attention;
  cpu.ram = &ram;
  cpu.code = &code;
  cpu::mmu_create(cpu);
  code.add_vcpu(&cpu);
  code.mark(cpu, 0x110, 0x40, 16);
  code.mark(cpu, 0x111, 0, 16);
  EXPECT_EQ(lines[0x110].load(), 2u);  // where the monitor looks
  const u32 first = code.generation(0x110).load(), second = code.generation(0x111).load();

  auto writes = std::make_unique<channel::CodeWrites>();
  EXPECT_EQ(answer_code_write(*writes, code, 0), 0u);  // nothing was asked
  const auto ask = [&](u64 at, u64 bytes, u32 number) {
    writes->at = at, writes->bytes = bytes, writes->asked = number;
    EXPECT_EQ(answer_code_write(*writes, code, number - 1), number);
    EXPECT_EQ(writes->answered.load(), number);
  };
  ask(0x110080, 0x40, 1);  // another line
  EXPECT_EQ(code.generation(0x110).load(), first);
  ask(0x110050, 1, 2);
  EXPECT_NE(code.generation(0x110).load(), first);
  EXPECT_EQ(code.generation(0x111).load(), second);
  EXPECT_EQ(lines[0x110].load(), 0u);
  ask(0x10fff0, 0x2000, 3);  // over several frames
  EXPECT_NE(code.generation(0x111).load(), second);
  ask(~u64{0} - 4, ~u64{0}, 4);  // nonsense is nothing
  cpu::mmu_destroy(cpu);
}

struct Nobody final : cpu::Bus {
  u32 port_read(cpu::Vcpu&, u16, unsigned) override { return 0; }
  void port_write(cpu::Vcpu&, u16, unsigned, u32) override {}
  u64 mmio_read(cpu::Vcpu&, Gpa, unsigned) override { return reads++, 0; }
  void mmio_write(cpu::Vcpu&, Gpa, unsigned, u64) override { writes++; }
  u8 pic_acknowledge(cpu::Vcpu&) override { return 0; }
  void ioapic_eoi(cpu::Vcpu&, u8) override {}
  unsigned reads = 0, writes = 0;
};

TEST(Doorbells, ArePostedWhereTheyArePublished) {
  auto page = std::make_unique<devices::DevicePage>();
  devices::DoorbellView view;
  view.at[0] = Gpa{0xc0003000}, view.at[2] = Gpa{0xc0008000};
  view.at[3] = Gpa{0xfebf3000};  // where a BIOS places it
  page->doorbells.store(view);
  auto serial = std::make_unique<channel::SerialRing>();
  auto bells = std::make_unique<channel::Doorbell[]>(channel::kDoorbells);
  LocalDevices devices{*page, *serial, true, bells.get()};
  Nobody monitor;
  LocalBus bus{devices, monitor};
  cpu::Vcpu cpu;
  bus.mmio_write(cpu, Gpa{0xc0003000}, 2, 0);
  bus.mmio_write(cpu, Gpa{0xc0008004}, 2, 1);
  bus.mmio_write(cpu, Gpa{0xc0008008}, 4, 2);
  bus.mmio_write(cpu, Gpa{0xfebf3000}, 2, 0);
  EXPECT_EQ(bells[0].rung.load(), 1u);
  EXPECT_EQ(bells[1].rung.load(), 0u);
  EXPECT_EQ(bells[2].rung.load(), 6u);
  EXPECT_EQ(bells[3].rung.load(), 1u);
  EXPECT_EQ(monitor.writes, 0u);
  bus.mmio_write(cpu, Gpa{0xc0002000}, 4, 0);  // beside them
  bus.mmio_write(cpu, Gpa{0xc0008100}, 4, 0);
  bus.mmio_read(cpu, Gpa{0xc0003000}, 4);
  EXPECT_EQ(monitor.writes, 2u);
  EXPECT_EQ(monitor.reads, 1u);
  // Asked for, where nothing may be posted.
  LocalDevices asking{*page, *serial, true};
  LocalBus other{asking, monitor};
  other.mmio_write(cpu, Gpa{0xc0003000}, 2, 0);
  EXPECT_EQ(monitor.writes, 3u);
}

TEST(Doorbells, RungTwiceIsOneLookAndNoneIsMissed) {
  channel::Doorbell bell;
  bell.ring(3);
  bell.ring(3);
  bell.ring(63);
  EXPECT_EQ(bell.take([] { return false; }), u64{1} << 63 | 8);
  EXPECT_EQ(bell.take([] { return true; }), 0u);
}

}  // namespace
}  // namespace trapline::core
