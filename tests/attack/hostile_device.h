// A virtio device of a VM as a bare guest finds it, behind registers or on the PCI bus, and what that bus itself lets a
// hostile driver do.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Names of registers: their places in a memory-mapped device.
enum {
  magic = 0x00,
  type = 0x08,
  features = 0x10,
  features_select = 0x14,
  accepted = 0x20,
  accepted_select = 0x24,
  queue = 0x30,
  largest = 0x34,
  size = 0x38,
  ready = 0x44,
  notify = 0x50,
  pending = 0x60,
  acknowledge = 0x64,
  status = 0x70,
  table = 0x80,
  driver_area = 0x90,
  device_area = 0xa0
};

struct device {
  u32 function;  // its configuration address; 0: memory-mapped, and `common` has all registers
  u32 kind;
  u32 common, doorbells, interrupt, config, config_bytes;
};

u32 draw(u32 below);
static inline int one_in(u32 n) { return draw(n) == 0; }

u32 get(const struct device* d, u32 reg);
void set(const struct device* d, u32 reg, u32 value);
void set_place(const struct device* d, u32 reg, u64 at);  // 64 bits

// All there are, `most` at the most.
u32 find_devices(struct device* found, u32 most);
// Accesses of every size to the configuration of a PCI function: BARs moved and taken away, messages to nowhere,
// capabilities overwritten. It is as it was afterwards.
void attack_function(const struct device* d);
