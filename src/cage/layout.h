// Where things lie in a cage, for the stub (assembly) and for the core (C++). docs/cages.md.
//
//   stub       the stub's code, read and execute: the only place that the filter accepts a system call from. At kStub;
//              of some cages at kOtherStub, for guests that map something at kStub
//   exchange   one page shared with the core: registers, whose turn it is
//   vectors    one page shared with the core: an XSAVE image that the core has made
//   orders     one private page, filled by a read() of the order pipe: what only the core can have written
//   stack      shared with the core: the signal stack, which receives the guest's registers
#pragma once

#define CAGE_STUB 0x2f5a3c710000
#define CAGE_OTHER_STUB 0x1d93b64e0000
#define CAGE_CODE_BYTES 0x1000
#define CAGE_EXCHANGE 0x1000
#define CAGE_VECTORS 0x2000
#define CAGE_ORDERS 0x3000
#define CAGE_STACK 0x4000
#define CAGE_STACK_BYTES 0x10000
#define CAGE_BYTES 0x14000
// In the middle of the signal stack: a signal that comes while RSP is here is pushed below, and the frame above stays.
#define CAGE_IRET 0xc000
#define CAGE_TOP 0x7ffffffff000

#define CAGE_RAM_FD 3
#define CAGE_COPIES_FD 4
#define CAGE_ORDER_FD 5

// The exchange page. Cage to core, and core to cage on lines (and pairs of lines) of their own: spinning costs less.
#define X_GREGS \
  0x000 /* 24 words as in the kernel's sigcontext: R8..R15 RDI RSI RBP RBX RDX RAX RCX RSP RIP flags ... */
#define X_SIGINFO 0x0c0   /* si_code, si_call_addr, si_syscall and si_arch */
#define X_BASES 0x0d8     /* FS and GS base, where the host has FSGSBASE */
#define X_SELECTORS 0x0e8 /* DS ES FS GS, 16 bits each */
#define X_SIGNAL 0x0f0    /* what brought the cage here; 0: it is ready, or has carried out orders */
#define X_KEPT 0x0f4      /* 1: interrupted before the state that was given had been taken over */
#define X_ACK 0x0f8       /* the token of the last orders that were carried out */
#define X_FAILED 0x100    /* what the first order that failed has returned; 0: none */
#define X_CALLS 0x108     /* futex word, counts up: the cage has handed over */
#define X_CAGE_SLEEPS 0x10c
#define X_STAMPS 0x118  /* TSC when the cage last handed over, and when it last went on with the guest */
#define X_KICKED 0x110  /* a kick came after the core's answer, and before the guest ran */
#define X_ANSWERS 0x180 /* futex word, counts up: the core has answered */
#define X_CORE_SLEEPS 0x184
#define X_COMMAND 0x188 /* 0: go on with the guest; 1: orders are in the pipe */
#define X_SPINS 0x18c   /* TSC ticks to poll for before sleeping; the core may lower it meanwhile */
#define X_XRSTOR 0x190  /* address of the XSAVE image to load, in `vectors` or in the signal stack */
#define X_XMASK 0x198
#define X_FSGSBASE 0x19c  /* 1: the host has the instructions */
#define X_NEW_GREGS 0x1c0 /* core to cage: 16 words, R8..RSP in the same order; RIP, RFLAGS in the IRET frame */
#define X_NEW_BASES 0x240
#define X_FILTER 0x800 /* sock_fprog and its instructions, at the start only */

// The page of orders
#define B_COUNT 0x00
#define B_DONE 0x04  /* all are carried out: only wiping is left */
#define B_AFTER 0x08 /* 0: go on with the guest; 1: hand over */
#define B_TOKEN 0x10
#define B_ORDER 0x40 /* of 64 bytes: number, six arguments */

#ifndef __ASSEMBLER__
#include <atomic>
#include <cstddef>

#include "base/types.h"

namespace trapline::cage {

inline constexpr u64 kStub = CAGE_STUB, kOtherStub = CAGE_OTHER_STUB, kStubBytes = CAGE_BYTES, kTop = CAGE_TOP;
inline constexpr unsigned kMostOrders = 63;

// Indices of `gregs`.
enum Greg : u8 {
  r8,
  r9,
  r10,
  r11,
  r12,
  r13,
  r14,
  r15,
  rdi,
  rsi,
  rbp,
  rbx,
  rdx,
  rax,
  rcx,
  rsp,
  rip,
  rflags,
  selectors,
  error,
  trap,
  mask,
  cr2,
  fpstate
};

struct Exchange {
  // Of the cage: hostile.
  u64 gregs[24];
  u64 siginfo[3];
  u64 fs_base, gs_base;
  u16 ds, es, fs, gs;
  u32 signal, kept;
  u64 ack;
  alignas(128) u64 failed;
  std::atomic<u32> calls, cage_sleeps;
  u32 kicked, reserved;
  u64 stopped_at, resumed_at;  // what costs are learnt from; no more
  // Of the core.
  alignas(128) std::atomic<u32> answers;
  std::atomic<u32> core_sleeps;
  u32 command;
  std::atomic<u32> spins;
  u64 xrstor;
  u32 xmask, fsgsbase;
  alignas(64) u64 new_gregs[16];
  u64 new_fs_base, new_gs_base;
};
// clang-format off
#define AT(field, offset) static_assert(offsetof(Exchange, field) == (offset))
AT(gregs, X_GREGS); AT(siginfo, X_SIGINFO); AT(fs_base, X_BASES); AT(ds, X_SELECTORS); AT(signal, X_SIGNAL);
AT(kept, X_KEPT); AT(ack, X_ACK); AT(failed, X_FAILED); AT(calls, X_CALLS); AT(cage_sleeps, X_CAGE_SLEEPS); AT(kicked, X_KICKED); AT(stopped_at, X_STAMPS);
AT(answers, X_ANSWERS); AT(core_sleeps, X_CORE_SLEEPS); AT(command, X_COMMAND); AT(spins, X_SPINS);
AT(xrstor, X_XRSTOR); AT(xmask, X_XMASK); AT(fsgsbase, X_FSGSBASE); AT(new_gregs, X_NEW_GREGS);
AT(new_fs_base, X_NEW_BASES);
#undef AT
// clang-format on
static_assert(sizeof(Exchange) <= X_FILTER);

struct Order {
  u64 number;
  u64 argument[6];
  u64 reserved;
};
struct Orders {
  u32 count, done, after, reserved;
  u64 token;
  u64 pad[5];
  Order order[kMostOrders];
};
static_assert(offsetof(Orders, after) == B_AFTER && offsetof(Orders, token) == B_TOKEN &&
              offsetof(Orders, order) == B_ORDER && sizeof(Order) == 64 && sizeof(Orders) == 4096);

// What returns to the guest, at CAGE_IRET.
struct IretFrame {
  u64 rip, cs, rflags, rsp, ss;
};

// What the core maps of a cage: exchange, vectors, stack, in this order.
struct Shared {
  alignas(4096) Exchange exchange;
  alignas(4096) u8 vectors[4096];
  alignas(4096) u8 stack[CAGE_STACK_BYTES];
};
static_assert(sizeof(Shared) == 0x2000 + CAGE_STACK_BYTES);

extern "C" const char cage_stub_begin[], cage_stub_end[], cage_stub_init[], cage_stub_signal[];
// The addresses behind the stub's `syscall` instructions.
extern "C" const char cage_site_wake[], cage_site_wait[], cage_site_read[], cage_site_order[], cage_site_exit[];

}  // namespace trapline::cage
#endif
