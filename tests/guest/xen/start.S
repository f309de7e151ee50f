// A Xen PV guest's first instruction, and what a domain builder has to know of it (xen/elfnote.h).
#define __ASSEMBLY__
#include <xen/elfnote.h>

.macro note type, value:vararg
        .pushsection .note.xen, "a", @note
        .balign 4
        .long   4, 2f - 1f, \type
        .asciz  "Xen"
1:      \value
2:      .balign 4
        .popsection
.endm

        note    XEN_ELFNOTE_GUEST_OS, .asciz "test"
        note    XEN_ELFNOTE_XEN_VERSION, .asciz "xen-3.0"
        note    XEN_ELFNOTE_LOADER, .asciz "generic"
        note    XEN_ELFNOTE_VIRT_BASE, .quad 0
        note    XEN_ELFNOTE_ENTRY, .quad start
        note    XEN_ELFNOTE_HYPERCALL_PAGE, .quad hypercall_page

        .section .text.start, "ax"
        .global start, again, trapped, hypercall_page, stack_top
start:
        mov     %rsi, %rdi
        lea     stack_top(%rip), %rsp
        call    begin
        ud2

// Every exception comes here: what was under way is given up, and the guest goes on with the next thing. No IRET is
// owed: a PV guest's trap leaves no state behind but what is on the stack.
trapped:
        lea     stack_top(%rip), %rsp
        call    again
        ud2

        .data
        .balign 4096
hypercall_page:
        .fill   4096, 1, 0xc3
        .bss
        .balign 4096
        .skip   65536
stack_top:
        .section .note.GNU-stack, "", @progbits
