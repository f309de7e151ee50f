// Asks the hypervisor for anything, with any arguments, as often as the command line says ("SEED COUNT"). It may be told
// errors, and it may die of what it has done to itself; nothing else may come of it.
//
// Arguments are mostly such as might be meant: pages of a pool, which it may do with as it likes, their frames, what
// such a structure could hold. What would only end it, or have it sleep for ever, is left out.
#include "guest.h"

#define POOL 64
static uint8_t pool[POOL][PAGE] __attribute__((aligned(4096)));
static uint64_t state, left, done;
static const start_info_t* info;
static const unsigned long* p2m;

static uint64_t random(void) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state * 0x2545f4914f6cdd1d >> 8;
}
static uint64_t below(uint64_t n) { return random() % n; }
static unsigned long page(void) { return (unsigned long)pool[below(POOL)]; }
static unsigned long frame(void) { return p2m[below(4) ? page() / PAGE : below(info->nr_pages)]; }

static unsigned long value(void) {
  static const unsigned long odd[] = {0, 1, ~0ul, DOMID_SELF, 1ul << 63, 0xffff800000000000, 0xffff820000000000,
                                      0x00007fffffffffff, 0xffff880000000000, 1ul << 47};
  switch (below(12)) {
    case 0: return odd[below(COUNT(odd))];
    case 1: return page();
    case 2: return page() + below(PAGE);
    case 3: return frame();
    case 4: return frame() << 12 | below(512);          // an entry of a page table
    case 5: return frame() << 12 | 0x67 | below(2) << 63;
    case 6: return frame() << 12 | below(512) * 8;      // the address of one
    case 7: return below(64);
    case 8: return DOMID_SELF;
    case 9: return info->pt_base / PAGE < info->nr_pages ? p2m[info->pt_base / PAGE + below(info->nr_pt_frames)] : 0;
    case 10: return below(5000);
    default: return random() << 20 ^ random();
  }
}

static const uint8_t numbers[] = {
    __HYPERVISOR_set_trap_table, __HYPERVISOR_mmu_update, __HYPERVISOR_set_gdt, __HYPERVISOR_set_callbacks,
    __HYPERVISOR_fpu_taskswitch, __HYPERVISOR_set_debugreg, __HYPERVISOR_get_debugreg, __HYPERVISOR_update_descriptor,
    __HYPERVISOR_memory_op, __HYPERVISOR_multicall, __HYPERVISOR_update_va_mapping, __HYPERVISOR_set_timer_op,
    __HYPERVISOR_xen_version, __HYPERVISOR_grant_table_op, __HYPERVISOR_vm_assist, __HYPERVISOR_vcpu_op,
    __HYPERVISOR_set_segment_base, __HYPERVISOR_mmuext_op, __HYPERVISOR_sched_op, __HYPERVISOR_callback_op,
    __HYPERVISOR_event_channel_op, __HYPERVISOR_physdev_op, __HYPERVISOR_update_va_mapping_otherdomain};

// Would it only end, or sleep?
static int pointless(unsigned long number, unsigned long command) {
  if (number == __HYPERVISOR_sched_op) return command != SCHEDOP_yield && command < 16;
  if (number == __HYPERVISOR_vcpu_op) return command == VCPUOP_down;
  return number == __HYPERVISOR_set_trap_table || number == __HYPERVISOR_iret;
}

static void one(void) {
  unsigned long a[4], number = below(8) ? numbers[below(COUNT(numbers))] : below(64);
  unsigned long* const list = (unsigned long*)page();
  for (unsigned i = 0; i < PAGE / 8; i++) list[i] = value();
  for (unsigned i = 0; i < 4; i++) a[i] = value();
  switch (number) {
    case __HYPERVISOR_mmu_update:
    case __HYPERVISOR_mmuext_op:
      a[0] = (unsigned long)list, a[1] = below(8), a[2] = below(2) ? page() : 0, a[3] = below(8) ? DOMID_SELF : value();
      if (number == __HYPERVISOR_mmuext_op)
        for (unsigned i = 0; i < 8; i++) *(uint32_t*)(list + i * sizeof(struct mmuext_op) / 8) = (uint32_t)below(22);
      break;
    case __HYPERVISOR_update_va_mapping:
      if (below(16)) a[0] = page();
      a[2] = below(2) ? below(4) : value();
      break;
    case __HYPERVISOR_multicall:
      a[0] = (unsigned long)list, a[1] = below(8);
      for (unsigned i = 0; i < 8; i++) {
        struct multicall_entry* e = (struct multicall_entry*)list + i;
        e->op = numbers[below(COUNT(numbers))];
        if (pointless(e->op, e->args[0]) || pointless(e->op, e->args[0] = below(32))) e->op = __HYPERVISOR_xen_version;
      }
      break;
    case __HYPERVISOR_console_io:
      return;
    default:
      if (below(4)) a[0] = below(32);
      if (below(4)) a[1] = (unsigned long)list;
      if (number == __HYPERVISOR_grant_table_op) a[2] = below(4);
  }
  if (pointless(number, a[0])) return;
  call(number, a[0], a[1], a[2], a[3]);
}

void again(void) {
  while (left != 0) {
    left--, done++;
    one();
  }
  print_number("hypercalls: ", done);
  print("PASS\n");
  leave(SHUTDOWN_poweroff);
}

extern void trapped(void);

void begin(const start_info_t* given) {
  info = given;
  p2m = (const unsigned long*)given->mfn_list;
  const char* c = (const char*)given->cmd_line;
  uint64_t number[2] = {1, 10000};
  for (unsigned i = 0; i < 2; i++) {
    if (*c < '0' || *c > '9') break;
    for (number[i] = 0; *c >= '0' && *c <= '9'; c++) number[i] = number[i] * 10 + (uint64_t)(*c - '0');
    while (*c == ' ') c++;
  }
  state = number[0] * 0x9e3779b97f4a7c15 | 1, left = number[1];
  static struct trap_info traps[33];
  for (unsigned i = 0; i < 32; i++)
    traps[i] = (struct trap_info){.vector = (uint8_t)i, .flags = 3, .cs = FLAT_KERNEL_CS, .address = (unsigned long)trapped};
  call(__HYPERVISOR_set_trap_table, (unsigned long)traps, 0, 0, 0);
  again();
}
