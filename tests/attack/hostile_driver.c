// A bare guest (32-bit, multiboot) whose virtio drivers do all that they must not: descriptor loops, lengths past RAM,
// index jumps, rings in device memory, in themselves and nowhere, tables of tables, resets in flight, queues changed
// under load, configuration accesses of every size. It ends with
// PASS when every device still answers, and is right after that: nothing here may end the monitor.
//
// What devices write goes to an arena away from this code, or nowhere; and no number in it below 4000 (hex) is that of a
// page of this code (hostile.ld), which the balloon would take away.
#include "hostile_device.h"

enum { arena = 16 << 20, arena_bytes = 32 << 20, ram_end = 64 << 20 };
enum { most_devices = 16, rounds = 100 };
enum { next = 1, write = 2, indirect = 4 };

struct descriptor {
  u64 at;
  u32 length;
  u16 flags, next;
};

static u64 seed = 0x9e3779b97f4a7c15;
u32 draw(u32 below) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return (u32)(seed >> 16) % below;
}
static void out(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static void say(const char* text) {
  for (; *text; text++) out(0x3f8, (u8)*text);
}

// Where a buffer or a ring may be said to be.
static u64 place(void) {
  static const u64 nowhere[] = {0,
                                8,
                                ram_end - 16,
                                ram_end,
                                ram_end - 1,
                                0xfeb00000,
                                0xfee00000,
                                0xfec00000,
                                0xffffffff,
                                0x100000000,
                                0x7fffffffffffffff,
                                0xfffffffffffffff0,
                                0xffffffffffffffff,
                                0xa0000};
  return one_in(4) ? nowhere[draw(sizeof nowhere / sizeof *nowhere)]
                   : arena + draw((arena_bytes - (5 << 20)) / 16) * 16;
}
static u32 length(void) {
  static const u32 odd[] = {0, 1, 3, 16, 4095, 4097, 0x10001, 4 << 20, ram_end, 0x7fffffff, 0x80000000, 0xffffffff};
  return one_in(3) ? odd[draw(sizeof odd / sizeof *odd)] : 16 + draw(64) * 512;
}

static void fill_table(struct descriptor* d, u32 count, u32 base) {
  for (u32 i = 0; i < count; i++) {
    d[i].at = one_in(20) ? base : place();
    d[i].length = one_in(6) ? 16 * (1 + draw(count)) : length();
    d[i].flags = (u16)(one_in(30) ? draw(65536) | 0x4000
                                  : (draw(3) ? next : 0) | (draw(2) ? write : 0) | (one_in(6) ? indirect : 0));
    d[i].next = (u16)(one_in(8) ? draw(65536) | 0x4000 : draw(count));
  }
}

struct rings {
  u32 size;
  int packed;
  u32 table, driver, device;  // in the arena, for those that are real
};

// A request that looks right, so that devices get as far as their own part of it.
static void plausible(struct descriptor* d, u32 count, u32 kind) {
  u32* head = (u32*)(u32)(d[0].at = arena + 1024 * (1 + draw(1000)));
  for (u32 i = 0; i < 16; i++) head[i] = draw(4) ? draw(4) : draw(0xffffffff);
  if (kind == 9) head[0] = draw(2) ? draw(200) : 0xffffffff, ((u8*)head)[4] = (u8)(100 + draw(30));
  if (kind == 2) head[0] = draw(3), head[2] = draw(2500), head[3] = one_in(10);
  d[0].length = kind == 2 ? 16 : 64, d[0].flags = next, d[0].next = 1 % (u16)count;
  const u32 to_guest = draw(2);
  for (u32 i = 1; i < 4 && i < count; i++) {
    d[i].at = arena + draw(arena_bytes / 16 - 65536) * 16;
    d[i].length = i == 3 ? 1 : 512 * (1 + draw(8));
    d[i].flags = (u16)((i < 3 && i + 1 < count ? next : 0) | ((to_guest || i == 3) != one_in(20) ? write : 0));
    d[i].next = (u16)(i + 1);
  }
}

static int set_up(const struct device* device, u32 index, struct rings* r) {
  set(device, queue, index);
  const u32 most = get(device, largest);
  if (most == 0) return 0;
  r->size = one_in(10) ? draw(70000) : 1u << draw(9);
  if (r->size > most && draw(4)) r->size = most;
  r->table = arena + draw(1000) * 4096;
  r->driver = one_in(10) ? r->table : r->table + 16384;
  r->device = one_in(10) ? r->table + draw(64) * 2 : r->table + 32768;
  *(u32*)r->driver = one_in(20) ? draw(0xffffffff) : 0;
  set(device, size, r->size);
  set_place(device, table, one_in(12) ? place() : r->table);
  set_place(device, driver_area, one_in(12) ? place() : r->driver);
  set_place(device, device_area, one_in(12) ? place() : r->device);
  set(device, ready, 1);
  if (r->size == 0 || r->size > 256) r->size = 1 + draw(256);
  return 1;
}

// Split or packed: the bytes are what they are.
static void offer(const struct rings* r, u32 kind) {
  struct descriptor* d = (struct descriptor*)r->table;
  volatile u16* driver = (volatile u16*)r->driver;
  fill_table(d, r->size, r->table);
  if (draw(3)) plausible(d, r->size, kind);
  for (u32 i = 0; r->packed && i < r->size; i++) {  // its fields change places, and two bits say whose it is
    const u16 flags = d[i].flags & 0x7f7f;
    d[i].flags = d[i].next;
    d[i].next = (u16)(flags | (draw(10) ? 0x80 : draw(65536) & 0x8080));
  }
  for (u32 i = 0; i < r->size; i++)
    driver[2 + i] = (u16)(one_in(10) ? draw(65536) | 0x4000 : draw(2) ? 0 : draw(r->size));
  driver[0] = (u16)draw(2);
  driver[1] = (u16)(one_in(10) ? draw(65536) | 0x4000 : driver[1] + 1 + draw(2));
}

static void read_and_write_config(const struct device* device) {
  for (u32 i = 0; i < 8; i++) {
    const u32 at = device->config + draw(device->config_bytes - 4);
    switch (draw(6)) {
      case 0:
        (void)*(volatile u8*)at;
        break;
      case 1:
        (void)*(volatile u16*)at;
        break;
      case 2:
        (void)*(volatile u32*)at;
        break;
      case 3:
        *(volatile u8*)at = (u8)draw(256);
        break;
      case 4:
        *(volatile u16*)at = (u16)draw(65536);
        break;
      default:
        *(volatile u32*)at = draw(0xffffffff);
        break;
    }
  }
  // Registers in the wrong size, and those that are none.
  if (device->function) return;
  const u32 at = device->common + draw(0x100 - 4);
  if (draw(2)) (void)*(volatile u16*)at;
  if (draw(2)) *(volatile u8*)at = (u8)draw(256);
}

static void reset(const struct device* device) {
  set(device, status, 0);
  for (u32 i = 0; i < 100000 && get(device, status) != 0; i++) __asm__ volatile("pause");
}

static int negotiate(const struct device* device) {  // packed rings?
  int packed = 0;
  set(device, status, 1);
  set(device, status, 3);
  for (u32 half = 0; half < 2; half++) {
    set(device, features_select, half);
    const u32 offered = get(device, features);
    set(device, accepted_select, half);
    const u32 chosen = one_in(20) ? draw(0xffffffff) : half && draw(2) ? offered & ~4u : offered;
    set(device, accepted, chosen);
    packed = half && chosen & 4;
  }
  set(device, status, one_in(20) ? draw(256) : 11);
  return packed;
}

static void attack(const struct device* device) {
  struct rings r[8];
  for (u32 round = 0; round < rounds; round++) {
    if (draw(3)) reset(device);
    const int packed = negotiate(device);
    u32 queues = 0;
    for (u32 i = 0; i < 8; i++)
      if (set_up(device, i, &r[queues])) r[queues++].packed = packed;
    set(device, status, one_in(20) ? draw(256) : 15);
    for (u32 turn = 0; turn < 6; turn++) {
      const u32 q = queues ? draw(queues) : 0;
      if (queues) offer(&r[q], device->kind);
      set(device, notify, one_in(20) ? draw(0xffffffff) : q);
      if (one_in(4)) read_and_write_config(device);
      if (one_in(12)) attack_function(device);
      if (one_in(6)) set(device, acknowledge, get(device, pending));
      if (one_in(8)) set_up(device, q, &r[q]);  // it is enabled
      if (one_in(8)) set(device, queue, draw(70000)), set(device, ready, draw(2));
      if (one_in(10)) set(device, status, 0);               // in flight
      if (queues && one_in(4)) offer(&r[q], device->kind);  // while it is looked at
    }
  }
  reset(device);
}

// A sector written as a driver that behaves does it: 0 is done, 1 refused (a disk that is only read). No answer at all is
// for the VM's time limit to tell.
static u32 write_sector(const struct device* disk) {
  struct descriptor* d = (struct descriptor*)arena;
  volatile u16* driver = (volatile u16*)(arena + 4096);
  volatile u16* used = (volatile u16*)(arena + 8192);
  u32* head = (u32*)(arena + 12288);
  volatile u8* answer = (volatile u8*)(arena + 12304);
  d[0] = (struct descriptor){(u32)head, 16, next, 1};
  d[1] = (struct descriptor){arena + 16384, 512, next, 2};
  d[2] = (struct descriptor){(u32)answer, 1, write, 0};
  head[0] = 1, head[1] = 0, head[2] = 1, head[3] = 0;  // OUT, sector 1
  *answer = 0xff;
  driver[0] = 1, driver[1] = 0, used[1] = 0;
  set(disk, queue, 0);
  set(disk, size, 4);
  set_place(disk, table, (u32)d);
  set_place(disk, driver_area, (u32)driver);
  set_place(disk, device_area, (u32)used);
  set(disk, ready, 1);
  set(disk, status, 15);
  driver[2] = 0, driver[1] = 1;
  set(disk, notify, 0);
  while (used[1] == 0) __asm__ volatile("pause");
  return *answer;
}

// The device as a driver that behaves finds it.
static int is_right(const struct device* device) {
  reset(device);
  if (get(device, status) != 0) return 0;
  set(device, status, 3);
  set(device, features_select, 1);
  set(device, accepted_select, 1);
  set(device, accepted, get(device, features) & 1);
  set(device, accepted_select, 0);
  set(device, accepted, 0);
  set(device, status, 11);
  if (get(device, status) != 11) return 0;
  return device->kind != 2 || write_sector(device) <= 1;
}

u8 stack[16384] __attribute__((aligned(16)));
void run(void);
void run(void) {
  static struct device found[most_devices];
  const u32 devices = find_devices(found, most_devices);
  for (u32 at = arena; at < arena + arena_bytes; at += 4) *(u32*)at = draw(0xffffffff) | 0x4000000;
  for (u32 i = 0; i < devices; i++) {
    say(".");
    attack(&found[i]);
  }
  for (u32 i = 0; i < devices; i++)
    if (!is_right(&found[i])) {
      say("FAIL\n");
      out(0xf4, 0x11);
    }
  say(devices ? "PASS\n" : "no devices\n");
  out(0xf4, devices ? 0x10 : 0x11);
  for (;;) __asm__ volatile("hlt");
}

__asm__(
    ".section .multiboot, \"a\"\n"
    ".align 4\n"
    ".long 0x1BADB002, 3, -(0x1BADB002 + 3)\n"
    ".text\n"
    ".globl _start\n"
    "_start:\n"
    "  cli\n"
    "  mov $stack + 16384, %esp\n"
    "  call run\n");
