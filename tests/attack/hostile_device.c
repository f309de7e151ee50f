#include "hostile_device.h"

enum { registers = 0xfeb00000, each = 0x200 };
enum { command = 4, bars = 0x10, capabilities = 0x34, all_bars = 6 };

static inline void out8(u16 port, u8 v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline void out16(u16 port, u16 v) { __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port)); }
static inline void out32(u16 port, u32 v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port)); }
static inline u8 in8(u16 port) {
  u8 v;
  __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
  return v;
}
static inline u16 in16(u16 port) {
  u16 v;
  __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
  return v;
}
static inline u32 in32(u16 port) {
  u32 v;
  __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
  return v;
}

static u32 read32(u32 at) { return *(volatile u32*)at; }
static void write32(u32 at, u32 value) { *(volatile u32*)at = value; }

// -- Registers
static u32 place_in_common(u32 reg) {
  switch (reg) {
    case features:
      return 0x04;
    case features_select:
      return 0x00;
    case accepted:
      return 0x0c;
    case accepted_select:
      return 0x08;
    case status:
      return 0x14;
    case queue:
      return 0x16;
    case ready:
      return 0x1c;
    case table:
      return 0x20;
    case driver_area:
      return 0x28;
    case device_area:
      return 0x30;
    default:
      return 0x18;  // the queue's size, and its largest before that
  }
}

u32 get(const struct device* d, u32 reg) {
  if (!d->function) return read32(d->common + reg);
  if (reg == pending) return *(volatile u8*)d->interrupt;
  const u32 at = d->common + place_in_common(reg);
  if (reg == status) return *(volatile u8*)at;
  return reg == features || reg == accepted ? read32(at) : *(volatile u16*)at;
}

void set(const struct device* d, u32 reg, u32 value) {
  if (!d->function) return write32(d->common + reg, value);
  if (reg == acknowledge) return (void)get(d, pending);
  if (reg == notify) return write32(d->doorbells + (value & 63) * 4, value);
  const u32 at = d->common + place_in_common(reg);
  if (reg == status)
    *(volatile u8*)at = (u8)value;
  else if (reg == queue || reg == size || reg == ready)
    *(volatile u16*)at = (u16)value;
  else
    write32(at, value);
}

void set_place(const struct device* d, u32 reg, u64 at) {
  const u32 low = d->function ? d->common + place_in_common(reg) : d->common + reg;
  write32(low, (u32)at);
  write32(low + 4, (u32)(at >> 32));
}

// -- The PCI bus, by its ports
static u32 pci_get(u32 function, u32 reg) {
  out32(0xcf8, function | (reg & 0xfc));
  return in32(0xcfc);
}
static void pci_set(u32 function, u32 reg, u32 value) {
  out32(0xcf8, function | (reg & 0xfc));
  out32(0xcfc, value);
}
static u32 bar(u32 function, u32 index) { return pci_get(function, bars + index % all_bars * 4) & ~15u; }

static int find_structures(struct device* d) {
  u32 found = 0;
  for (u32 at = pci_get(d->function, capabilities) & 0xfc, left = 48; at && left; left--) {
    const u32 head = pci_get(d->function, at);
    if ((head & 0xff) == 9) {
      const u32 where = bar(d->function, pci_get(d->function, at + 4) & 0xff) + pci_get(d->function, at + 8);
      const u32 which = head >> 24;
      if (which == 1) d->common = where, found |= 1;
      if (which == 2) d->doorbells = where, found |= 2;
      if (which == 3) d->interrupt = where, found |= 4;
      if (which == 4) d->config = where, d->config_bytes = pci_get(d->function, at + 12), found |= 8;
    }
    at = head >> 8 & 0xfc;
  }
  return found == 15;
}

u32 find_devices(struct device* found, u32 most) {
  u32 count = 0;
  for (u32 at = registers; count < most && read32(at + magic) == 0x74726976; at += each)
    found[count++] = (struct device){0, read32(at + type), at, 0, 0, at + 0x100, 0x100};
  for (u32 slot = 0; slot < 32 && count < most; slot++) {
    struct device d = {.function = 0x80000000 | slot << 11};
    const u32 id = pci_get(d.function, 0);
    if ((id & 0xffff) != 0x1af4) continue;
    d.kind = (id >> 16) - 0x1040;
    pci_set(d.function, command, 6);  // memory, and it may master the bus
    if (find_structures(&d)) found[count++] = d;
  }
  return count;
}

static u32 odd_place(void) {
  static const u32 places[] = {0,          0xffffffff, 0xfee00000,        0xfec00000, 0xfebff000,
                               0xe0000000, 64 << 20,   (64 << 20) - 4096, 0xfffff000, 17 << 20};
  return places[draw(sizeof places / sizeof *places)];
}

// What it has of its own is read and written, and what it has not.
static void touch(const struct device* d) {
  for (u32 i = 0; i < 4; i++) {
    const u32 at = draw(2) ? bar(d->function, draw(all_bars)) : d->common & ~0xfffu;
    if (at < 0xc0000000 || (at & 0xfff00000) == 0xfee00000) continue;
    const u32 to = at + draw(2) * draw(0x4000) + 0x38;  // not the places of rings
    switch (draw(4)) {
      case 0:
        (void)*(volatile u8*)to;
        break;
      case 1:
        (void)*(volatile u16*)to;
        break;
      case 2:
        (void)read32(to);
        break;
      default:
        (void)*(volatile u16*)(to | 1);
        break;
    }
  }
}

// A message's place is nowhere, or an interrupt that nobody takes.
static void aim_messages(const struct device* d) {
  const u32 vectors = bar(d->function, 1 + draw(5));
  if (vectors < 0xc0000000 || (vectors & 0xfff00000) == 0xfee00000) return;
  const u32 entry = vectors + draw(80) * 16;
  write32(entry, draw(2) ? 0xfee00000 | draw(256) << 12 : odd_place());
  write32(entry + 4, one_in(4) ? draw(0xffffffff) : 0);
  write32(entry + 8, draw(256));  // fixed
  write32(entry + 12, draw(2));
  *(volatile u16*)(d->common + 0x10) = (u16)draw(70000);
  *(volatile u16*)(d->common + 0x1a) = (u16)draw(70000);
}

void attack_function(const struct device* d) {
  const u32 f = d->function;
  if (!f) return;
  u32 before[all_bars];
  for (u32 i = 0; i < all_bars; i++) before[i] = pci_get(f, bars + i * 4);
  for (u32 i = 0; i < 24; i++) {
    const u32 reg = draw(256);
    const int own = !one_in(10);  // another's is only read
    out32(0xcf8, (own ? f : f ^ draw(0x800) << 8) | (reg & 0xfc));
    switch (draw(7)) {
      case 0:
        (void)in8((u16)(0xcfc + (reg & 3)));
        break;
      case 1:
        (void)in16((u16)(0xcfc + (reg & 2)));
        break;
      case 2:
        (void)in32(0xcfc);
        break;
      case 3:
        if (own && reg >= 0x40) out8((u16)(0xcfc + (reg & 3)), (u8)draw(256));
        break;
      case 4:
        if (own && reg >= 0x40) out16((u16)(0xcfc + (reg & 2)), (u16)draw(65536));
        break;
      case 5:
        pci_set(f, bars + draw(all_bars) * 4, odd_place());
        break;
      default:
        pci_set(f, command, draw(65536));
        break;
    }
    if (one_in(3)) touch(d);
    if (one_in(6)) {
      for (u32 b = 0; b < all_bars; b++) pci_set(f, bars + b * 4, before[b]);
      pci_set(f, command, 6);
      aim_messages(d);
    }
  }
  for (u32 i = 0; i < all_bars; i++) pci_set(f, bars + i * 4, before[i]);
  pci_set(f, command, 6);
}
