// One IDE channel with a CD drive as device 0 and nothing as device 1: task file, packet commands by PIO and by bus-master
// DMA (ATA/ATAPI-6; Intel 82371SB, 2.7; "Programming Interface for Bus Master IDE Controller"). A command is done when
// the access that completes it returns.
//
//   task file 0..7   control (one port)   bus master 0 command, 2 status, 4 table
#pragma once

#include <array>

#include "devices/atapi.h"
#include "devices/device.h"
#include "devices/virtio/dma.h"

namespace trapline::devices {

class IdeChannel final : public Device {
 public:
  enum class Phase : u8 { idle, packet, out_bytes, dma };
  struct State {
    Phase phase = Phase::idle;
    bool by_dma = false, irq = false;
    u8 error = 1, feature = 0, count = 1, lba_low = 1, byte_low = 0x14, byte_high = 0xeb, device = 0, status = 0,
       control = 0;
    Atapi::Packet packet{};
    std::array<u8, kCdBlock> buffer{};  // what DRQ offers, or the packet's bytes so far
    u32 filled = 0, taken = 0;          // of the buffer
    u32 next_block = 0, blocks = 0;     // to come after it
    u32 burst = 0;                      // bytes until the next interrupt
    u8 master_command = 0, master_status = 0;
    u32 table = 0;
    Atapi::State drive;
    bool operator==(const State&) const = default;
  };
  State save() const;
  void restore(const State& state);

  // `dma` may be null: no bus master then.
  IdeChannel(IrqLine& irq, CdImage& image, virtio::Dma* dma);

  const char* name() const override { return "ide"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  void reset() override;
  Device& control_port() { return control_; }
  Device& bus_master() { return master_; }  // 16 bytes: the second channel's are empty

 private:
  struct Control final : Device {
    explicit Control(IdeChannel& c) : channel{c} {}
    const char* name() const override { return "ide-control"; }
    u64 read(u64, unsigned) override { return channel.status(); }
    void write(u64, unsigned, u64 value) override { channel.write_control(static_cast<u8>(value)); }
    void reset() override {}
    IdeChannel& channel;
  };
  struct Master final : Device {
    explicit Master(IdeChannel& c) : channel{c} {}
    const char* name() const override { return "ide-master"; }
    u64 read(u64 offset, unsigned size) override { return channel.read_master(offset, size); }
    void write(u64 offset, unsigned size, u64 value) override { channel.write_master(offset, size, value); }
    void reset() override {}
    IdeChannel& channel;
  };

  bool absent() const { return s_.device & 0x10; }
  u8 status() const { return absent() ? 0 : s_.status; }
  void signature();
  void raise();
  void command(u8 value);
  void write_control(u8 value);
  void identify();
  void offer(std::span<const u8> bytes);
  void take_packet(u64 value, unsigned size);
  void execute();
  void begin_burst();
  bool refill();
  void finish(bool failed);
  u64 take_data(unsigned size);
  u64 read_master(u64 offset, unsigned size) const;
  void write_master(u64 offset, unsigned size, u64 value);
  void run_dma();
  bool transfer();

  IrqLine& irq_;
  virtio::Dma* dma_;
  Atapi drive_;
  State s_;
  Control control_{*this};
  Master master_{*this};
};

}  // namespace trapline::devices
