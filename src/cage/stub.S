// The stub of a cage: position-independent code of one page, copied to where a cage has it. It hands the guest's registers over
// to the core, waits, carries out orders for the cage's own mappings, and goes on with the guest. docs/cages.md.
//
// No CALL and no RET: behind a kernel entry the return predictor may be no good (Safe RET).
#include "cage/layout.h"

#define AREA(offset) cage_stub_begin + (offset)(%rip)
#define X(offset) AREA(CAGE_EXCHANGE + (offset))
#define B(offset) AREA(CAGE_ORDERS + (offset))

#define NR_read 0
#define NR_munmap 11
#define NR_arch_prctl 158
#define NR_futex 202
#define NR_exit_group 231
#define NR_seccomp 317
#define FUTEX_WAKE 1
#define ARCH_SET_FS 0x1002
#define KICK 10 /* SIGUSR1 */
// Offsets in ucontext_t
#define UC_R8 40
#define UC_RDI 104
#define UC_RSI 112
#define UC_RBP 120
#define UC_RBX 128
#define UC_RDX 136
#define UC_RAX 144
#define UC_RCX 152
#define UC_RSP 160
#define UC_RIP 168
#define UC_RFLAGS 176
#define UC_CS 184
#define UC_SS 190
#define UC_SCRATCH_TOP 256 /* 40 bytes below it (CR2, FPSTATE ...) are not needed any more when they are written */

        .text
        .balign 4096
        .globl  cage_stub_begin, cage_stub_end, cage_stub_init, cage_stub_signal
        .globl  cage_site_wake, cage_site_wait, cage_site_read, cage_site_order, cage_site_exit
cage_stub_begin:

// ---- Signal handler. EDI signal, RSI siginfo, RDX ucontext: the guest's registers are in the frame. ----
cage_stub_signal:
        pushq   $2                              // Linux leaves NT, with which IRETQ is a fault, and AC as they were
        popfq
        mov     UC_RIP(%rdx), %rax
        lea     cage_stub_begin(%rip), %rcx
        sub     %rcx, %rax
        cmp     $CAGE_CODE_BYTES, %rax
        jb      .Linside
        mov     %edi, X(X_SIGNAL)
        movl    $0, X(X_KEPT)
        mov     8(%rsi), %eax
        mov     %rax, X(X_SIGINFO)
        mov     16(%rsi), %rax
        mov     %rax, X(X_SIGINFO + 8)
        mov     24(%rsi), %rax
        mov     %rax, X(X_SIGINFO + 16)
        lea     UC_R8(%rdx), %rsi
        lea     X(X_GREGS), %rdi
        mov     $24, %ecx
        rep movsq
        mov     %ds, X(X_SELECTORS)
        mov     %es, X(X_SELECTORS + 2)
        mov     %fs, X(X_SELECTORS + 4)
        mov     %gs, X(X_SELECTORS + 6)
        cmpl    $0, X(X_FSGSBASE)
        je      1f
        rdfsbase %rax
        mov     %rax, X(X_BASES)
        rdgsbase %rax
        mov     %rax, X(X_BASES + 8)
1:      cmpq    $0, X(X_SELECTORS)
        je      .Lhand_over
        xor     %eax, %eax                      // those that the guest is resumed with
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %fs
        mov     %eax, %gs

// ---- Publish and wait ----
.Lhand_over:
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     %rax, X(X_STAMPS)
        lock incl X(X_CALLS)                    // a fence, too: X_CORE_SLEEPS is read after it
        mov     X(X_CALLS), %ebx
        cmpl    $0, X(X_CORE_SLEEPS)
        je      .Lspin_begin
        mov     $NR_futex, %eax
        lea     X(X_CALLS), %rdi
        mov     $FUTEX_WAKE, %esi
        mov     $1, %edx
        syscall
cage_site_wake:
.Lspin_begin:
        rdtsc
        mov     %eax, %ecx
.Lspin:
        cmp     X(X_ANSWERS), %ebx
        je      .Lanswered
        pause
        rdtsc
        sub     %ecx, %eax
        cmp     X(X_SPINS), %eax
        jb      .Lspin
.Lsleep:
        mov     $1, %eax
        xchg    %eax, X(X_CAGE_SLEEPS)          // a fence: X_ANSWERS is read after it
.Lsleep_again:
        mov     X(X_ANSWERS), %edx
        cmp     %ebx, %edx
        je      .Lwoken
        mov     $NR_futex, %eax
        lea     X(X_ANSWERS), %rdi
        xor     %esi, %esi                      // FUTEX_WAIT
        xor     %r10d, %r10d
        syscall
cage_site_wait:
        jmp     .Lsleep_again
.Lwoken:
        movl    $0, X(X_CAGE_SLEEPS)
.Lanswered:
        cmpl    $0, X(X_COMMAND)
        je      .Lresume

// ---- Orders. What is in the page of orders came through the pipe. A kick in here begins again: all are idempotent. ----
.Lorders:
        cmpl    $0, B(B_COUNT)
        jne     .Lhave_orders
        xor     %eax, %eax                      // read
        mov     $CAGE_ORDER_FD, %edi
        lea     B(0), %rsi
        mov     $4096, %edx
        syscall
cage_site_read:
        jmp     .Lorders
.Lhave_orders:
        cmpl    $0, B(B_DONE)
        jne     .Lwipe
        movq    $0, X(X_FAILED)
        mov     B(B_COUNT), %ebp
        lea     B(B_ORDER), %r12
.Lorder:
        mov     0(%r12), %rax
        mov     8(%r12), %rdi
        mov     16(%r12), %rsi
        mov     24(%r12), %rdx
        mov     32(%r12), %r10
        mov     40(%r12), %r8
        mov     48(%r12), %r9
        syscall
cage_site_order:
        cmp     $-4095, %rax
        jb      .Lordered
        mov     %rax, X(X_FAILED)
.Lordered:
        add     $64, %r12
        dec     %ebp
        jnz     .Lorder
        movl    $1, B(B_DONE)
.Lwipe:                                         // the nonce is in the orders, R8 and R10
        xor     %eax, %eax
        xor     %r8d, %r8d
        xor     %r10d, %r10d
        lea     B(B_ORDER), %rdi
        mov     $(4096 - B_ORDER) / 8, %ecx
        rep stosq
        mov     B(B_TOKEN), %rax
        mov     %rax, X(X_ACK)
        mov     B(B_AFTER), %ecx
        movq    $0, B(B_COUNT)                  // and B_DONE, in one store: the end of the section
.Lorders_end:
        test    %ecx, %ecx
        jz      .Lresume
        movl    $0, X(X_SIGNAL)
        jmp     .Lhand_over

// ---- Go on with the guest. A kick in here hands over again: the state is still in the exchange page. ----
.Lresume:
        cmpl    $0, X(X_KICKED)
        jne     .Lkicked_at_resume
        lea     AREA(CAGE_IRET), %rsp
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     %rax, X(X_STAMPS + 8)
        mov     X(X_XRSTOR), %rdi
        test    %rdi, %rdi
        jz      1f
        mov     X(X_XMASK), %eax
        xor     %edx, %edx
        xrstor64 (%rdi)
1:      cmpl    $0, X(X_FSGSBASE)
        je      2f
        mov     X(X_NEW_BASES), %rax
        wrfsbase %rax
        mov     X(X_NEW_BASES + 8), %rax
        wrgsbase %rax
2:      mov     X(X_NEW_GREGS + 0), %r8
        mov     X(X_NEW_GREGS + 8), %r9
        mov     X(X_NEW_GREGS + 16), %r10
        mov     X(X_NEW_GREGS + 24), %r11
        mov     X(X_NEW_GREGS + 32), %r12
        mov     X(X_NEW_GREGS + 40), %r13
        mov     X(X_NEW_GREGS + 48), %r14
        mov     X(X_NEW_GREGS + 56), %r15
        mov     X(X_NEW_GREGS + 64), %rdi
        mov     X(X_NEW_GREGS + 72), %rsi
        mov     X(X_NEW_GREGS + 80), %rbp
        mov     X(X_NEW_GREGS + 88), %rbx
        mov     X(X_NEW_GREGS + 96), %rdx
        mov     X(X_NEW_GREGS + 104), %rax
        mov     X(X_NEW_GREGS + 112), %rcx
        iretq
.Lresume_end:

// ---- A signal that found the stub at work. RAX: where in the stub. All but a kick are an attack: guest code has jumped
// here, with TF set or arguments of its own, to learn the nonce. ----
.Linside:
        cmp     $KICK, %edi
        jne     .Ldie
        sub     $(.Lresume - cage_stub_begin), %rax
        cmp     $(.Lresume_end - .Lresume), %rax
        jb      .Lkicked_at_resume
        mov     X(X_ANSWERS), %ecx
        cmp     X(X_CALLS), %ecx
        jne     1f                              // it has handed over already
        movl    $1, X(X_KICKED)
1:      add     $(.Lresume - .Lorders), %rax
        cmp     $(.Lorders_end - .Lorders), %rax
        jb      .Lkicked_at_orders
        // Go on where it was.
        mov     UC_R8 + 0(%rdx), %r8
        mov     UC_R8 + 8(%rdx), %r9
        mov     UC_R8 + 16(%rdx), %r10
        mov     UC_R8 + 24(%rdx), %r11
        mov     UC_R8 + 32(%rdx), %r12
        mov     UC_R8 + 40(%rdx), %r13
        mov     UC_R8 + 48(%rdx), %r14
        mov     UC_R8 + 56(%rdx), %r15
        mov     UC_RDI(%rdx), %rdi
        mov     UC_RSI(%rdx), %rsi
        mov     UC_RBP(%rdx), %rbp
        mov     UC_RBX(%rdx), %rbx
        mov     UC_RCX(%rdx), %rcx
        lea     UC_SCRATCH_TOP(%rdx), %rsp
        movzwl  UC_SS(%rdx), %eax
        push    %rax
        push    UC_RSP(%rdx)
        push    UC_RFLAGS(%rdx)
        movzwl  UC_CS(%rdx), %eax
        push    %rax
        push    UC_RIP(%rdx)
        mov     UC_RAX(%rdx), %rax
        mov     UC_RDX(%rdx), %rdx
        iretq

.Lkicked_at_orders:                             // the nonce may be in the frame
        mov     UC_RSP(%rdx), %rsp
        lea     UC_R8(%rdx), %rdi
        mov     $24, %ecx
        xor     %eax, %eax
        rep stosq
        jmp     .Lorders

.Lkicked_at_resume:
        movl    $0, X(X_KICKED)
        movl    $KICK, X(X_SIGNAL)
        movl    $1, X(X_KEPT)
        lea     AREA(CAGE_IRET), %rsp
        jmp     .Lhand_over

// ---- The beginning: everything but the stub goes, and the filter closes. ----
cage_stub_init:
        lea     AREA(CAGE_STACK + CAGE_STACK_BYTES), %rsp
        mov     $NR_arch_prctl, %eax
        mov     $ARCH_SET_FS, %edi
        xor     %esi, %esi
        syscall
        mov     $NR_munmap, %eax
        xor     %edi, %edi
        lea     cage_stub_begin(%rip), %rsi
        syscall
        test    %rax, %rax
        jnz     .Lfailed
        mov     $NR_munmap, %eax
        lea     AREA(CAGE_BYTES), %rdi
        mov     $CAGE_TOP, %rsi
        sub     %rdi, %rsi
        syscall
        test    %rax, %rax
        jnz     .Lfailed
        mov     $NR_seccomp, %eax
        mov     $1, %edi                        // SECCOMP_SET_MODE_FILTER
        xor     %esi, %esi
        lea     X(X_FILTER), %rdx
        syscall
        test    %rax, %rax
        jnz     .Lfailed
        movl    $0, X(X_SIGNAL)
        jmp     .Lhand_over
.Lfailed:
        mov     %rax, X(X_FAILED)
.Ldie:
        mov     $NR_exit_group, %eax
        mov     $1, %edi
        syscall
cage_site_exit:
        hlt
        .org    cage_stub_begin + CAGE_CODE_BYTES, 0xcc
cage_stub_end:
        .section .note.GNU-stack, "", @progbits
