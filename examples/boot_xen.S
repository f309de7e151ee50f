# A Xen PV kernel begins in 64-bit code with paging on and its start_info in RSI (xen/xen.h). What the domain builder has
# to know stands in notes (xen/elfnote.h).
#define __ASSEMBLY__
#include <xen/elfnote.h>

  .macro note type, value:vararg
  .pushsection .note.xen, "a", @note
  .balign 4
  .long 4, 2f - 1f, \type
  .asciz "Xen"
1:\value
2:.balign 4
  .popsection
  .endm

  note XEN_ELFNOTE_GUEST_OS, .asciz "example"
  note XEN_ELFNOTE_XEN_VERSION, .asciz "xen-3.0"
  note XEN_ELFNOTE_LOADER, .asciz "generic"
  note XEN_ELFNOTE_VIRT_BASE, .quad 0
  note XEN_ELFNOTE_ENTRY, .quad start
  note XEN_ELFNOTE_HYPERCALL_PAGE, .quad hypercall_page

  .section .boot, "ax"
  .global start, hypercall_page
start:
  mov %rsi, start_info
  mov $stack_top, %rsp
  call kernel_main

  .data
  .balign 4096
hypercall_page:               # the builder fills it: hypercall n is 32 * n into it
  .skip 4096

  .bss
  .balign 16
  .skip 16384
stack_top:
  .section .note.GNU-stack, "", @progbits
