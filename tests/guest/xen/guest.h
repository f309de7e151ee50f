// What Xen PV test guests share: hypercalls, by SYSCALL as newer kernels make them, and a console.
#pragma once

#include <stddef.h>
#include <stdint.h>
// The interface's newest form.
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#include <xen/callback.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/xen.h>

#define PAGE 4096ul
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static inline long call(unsigned long number, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
  register unsigned long r10 asm("r10") = d;
  long result;
  asm volatile("syscall" : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(r10) : "a"(number) : "rcx", "r11", "memory");
  return result;
}

static inline void print(const char* text) {
  size_t n = 0;
  while (text[n]) n++;
  call(__HYPERVISOR_console_io, 0, n, (unsigned long)text, 0);
}

static inline void print_number(const char* name, unsigned long value) {
  char text[24];
  int at = sizeof text - 1;
  text[at] = 0;
  text[--at] = '\n';
  do {
    text[--at] = "0123456789abcdef"[value % 16];
    value /= 16;
  } while (value);
  print(name);
  print(text + at);
}

static inline void leave(unsigned reason) {
  struct sched_shutdown how = {reason};
  call(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (unsigned long)&how, 0, 0);
}
