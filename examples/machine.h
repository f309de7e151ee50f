// What the kernel asks of its machine. critical.c does it as one does on a machine of one's own; para_kvm.c asks the
// hypervisor where there is something to ask, para_xen.c for everything.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

struct __attribute__((packed)) table_pointer {
  u16 limit;
  u64 base;
};

void say(const char* text);
void end_machine(int wrong);

u64 save_flags(void);           // RFLAGS; bit 9: interrupts are on
void restore_flags(u64 flags);  // all of them, that bit too
void interrupts_off(void);
void interrupts_on(void);
void wait_for_interrupt(void);
struct table_pointer where_is_idt(void);
void set_idt(const struct table_pointer* idt);
u16 code_selector(void);  // its low two bits are the ring
void timer_entry(void);   // the handler of vector 32: calls timer_tick()

void start_timer(void);  // vector 32, again and again
void end_of_interrupt(void);
void tell_more(void);  // what only this build can

// kernel.c
void timer_tick(void);
void check(const char* what, int right);

static inline void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "d"(port)); }
