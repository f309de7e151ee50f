// QEMU's firmware configuration device (docs/specs/fw_cfg in QEMU's documentation): a 16-bit selector at offset 0 and an
// 8-bit data port at offset 1; with access to memory also the big-endian address of a DMA command at offset 4, whose
// lower half starts it and which is done when the write is. The contents are fixed when the machine is made; reads
// beyond an item yield 0.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "devices/device.h"
#include "devices/virtio/dma.h"

namespace trapline::devices {

class FwCfg final : public Device {
 public:
  enum Key : u16 {
    signature = 0x00,
    id = 0x01,
    uuid = 0x02,
    ram_size = 0x03,
    nographic = 0x04,
    nb_cpus = 0x05,
    machine_id = 0x06,
    kernel_size = 0x08,
    initrd_size = 0x0b,
    numa = 0x0d,
    boot_menu = 0x0e,
    max_cpus = 0x0f,
    cmdline_size = 0x14,
    cmdline_data = 0x15,
    file_dir = 0x19,
    file_first = 0x20,
  };

  struct State {
    u16 key = signature;  // the item selected
    u64 position = 0;     // of the next byte in it
    u32 dma_high = 0;     // upper half of a command's address
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  static constexpr u16 kPorts = 2, kDmaPorts = 12;

  explicit FwCfg(virtio::Dma* dma = nullptr);

  void add(u16 key, std::vector<u8> bytes) { items_[key] = std::move(bytes); }
  void add_number(u16 key, u64 value, unsigned bytes);  // little-endian
  // Names longer than 55 bytes are cut. Rebuilds the directory.
  void add_file(std::string_view file_name, std::vector<u8> bytes);

  const char* name() const override { return "fw_cfg"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  void reset() override { s_ = {}; }

 private:
  const std::vector<u8>* selected() const;  // null: there is no such item
  void rebuild_directory();
  void select(u16 key) { s_.key = key, s_.position = 0; }
  void run_dma(Gpa command);
  bool transfer(u32 control, u32 length, Gpa to);

  virtio::Dma* dma_;
  std::map<u16, std::vector<u8>> items_;
  std::vector<std::string> files_;  // item key: file_first + index
  State s_;
};

}  // namespace trapline::devices
