// A kernel that does four things and says whether they went well: it keeps interrupts off in a critical section, finds
// its interrupt table where it has put it, runs in ring 0, and is interrupted by a timer. Then it ends the machine.
#include "machine.h"

enum { kInterrupts = 1 << 9, kTimerVector = 32 };

struct gate {
  u16 offset_low, selector;
  u8 ist, type;
  u16 offset_middle;
  u32 offset_high, zero;
};
static struct gate idt[kTimerVector + 1];
static volatile unsigned ticks;
static int wrong;

void check(const char* what, int right) {
  say(what);
  say(right ? ": right\n" : ": WRONG\n");
  wrong |= !right;
}

__attribute__((weak)) void tell_more(void) {}

void timer_tick(void) {
  ticks++;
  end_of_interrupt();
}

static void take_the_timer(void) {
  const u64 entry = (u64)timer_entry;
  idt[kTimerVector] = (struct gate){(u16)entry, code_selector(), 0, 0x8e, (u16)(entry >> 16), (u32)(entry >> 32), 0};
  const struct table_pointer pointer = {sizeof idt - 1, (u64)idt};
  set_idt(&pointer);
}

static int interrupts_are_on(void) { return (save_flags() & kInterrupts) != 0; }

static void critical_section(void) {
  interrupts_on();
  check("interrupts are on", interrupts_are_on());
  const u64 flags = save_flags();
  interrupts_off();
  check("off in a critical section", !interrupts_are_on());
  restore_flags(flags);
  check("on again behind it", interrupts_are_on());
}

// Does the machine think so, too?
static void timer(void) {
  start_timer();
  for (unsigned i = 0; i < 3; i++) wait_for_interrupt();
  check("three waits, three ticks", ticks >= 3);
}

void kernel_main(void) {
  say("hello from the kernel\n");
  take_the_timer();
  check("the interrupt table is mine", where_is_idt().base == (u64)idt);
  check("this is ring 0", (code_selector() & 3) == 0);
  critical_section();
  timer();
  tell_more();
  say(wrong ? "something went WRONG\n" : "all went well\n");
  interrupts_off();
  end_machine(wrong);
}
