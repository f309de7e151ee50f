// The machine as one has it to oneself. Every function that reads or writes something sensitive is one instruction, and
// four of them are critical: in ring 3 they execute, and do or say something else (trapline isa NAME shows it).
#include "machine.h"

enum { kSerial = 0x3f8, kDebugExit = 0xf4 };

void say(const char* text) {
  while (*text) out8(kSerial, (u8)*text++);
}
// By the debug-exit port: 33 when all went well, 35 when not.
void end_machine(int wrong) {
  out8(kDebugExit, wrong ? 17 : 16);
  for (;;) wait_for_interrupt();
}

// Critical: PUSHF shows the host's IF.
u64 save_flags(void) {
  u64 flags;
  __asm__ volatile("pushfq; popq %0" : "=r"(flags)::"memory");
  return flags;
}
// Critical: POPF leaves IF alone, silently.
void restore_flags(u64 flags) { __asm__ volatile("pushq %0; popfq" ::"r"(flags) : "memory", "cc"); }
// Critical: SIDT shows the host's table, or a dummy.
struct table_pointer where_is_idt(void) {
  struct table_pointer idt;
  __asm__ volatile("sidt (%%rax)" ::"a"(&idt) : "memory");
  return idt;
}
// Critical: MOV r, CS shows the ring.
u16 code_selector(void) {
  u32 cs;
  __asm__ volatile("mov %%cs, %%eax" : "=a"(cs));
  return (u16)cs;
}
// Privileged, all of these: they trap, and trap-and-emulate would do.
void interrupts_off(void) { __asm__ volatile("cli" ::: "memory"); }
void interrupts_on(void) { __asm__ volatile("sti" ::: "memory"); }
void wait_for_interrupt(void) { __asm__ volatile("hlt" ::: "memory"); }
void set_idt(const struct table_pointer* idt) { __asm__ volatile("lidt (%%rax)" ::"a"(idt) : "memory"); }

// The handler ends with IRET, which is critical, too: it restores IF.
__asm__(
    ".text\n.global timer_entry\n"
    "timer_entry: push %rax; push %rcx; push %rdx; push %rsi; push %rdi; push %r8; push %r9; push %r10; push %r11\n"
    "call timer_tick\n"
    "pop %r11; pop %r10; pop %r9; pop %r8; pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rax; iretq\n");

// The 8259s at vectors 32 and 40, all but the timer masked; the 8254 at 1000 Hz.
void start_timer(void) {
  static const struct {
    u16 port;
    u8 value;
  } steps[] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, 32},   {0xa1, 40},   {0x21, 4},    {0xa1, 2},   {0x21, 1},
               {0xa1, 1},    {0x21, 0xfe}, {0xa1, 0xff}, {0x43, 0x34}, {0x40, 0xa9}, {0x40, 0x04}};
  for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) out8(steps[i].port, steps[i].value);
}
void end_of_interrupt(void) { out8(0x20, 0x20); }
