# From multiboot's 32-bit protected mode to 64-bit code in ring 0: page tables that map the first GiB to itself, and a
# descriptor table. Multiboot specification 0.6.96, 3.1.
  .section .boot, "awx"
  .code32
  .balign 4
header:
  .long 0x1badb002, 0x00010000, -(0x1badb002 + 0x00010000)
  .long header, header, 0, 0, start
  .global start
start:
  mov $stack_top, %esp
  mov $pdpt + 3, %eax
  mov %eax, pml4
  mov $0x83, %eax             # present, writable, 1 GiB
  mov %eax, pdpt
  mov $pml4, %eax
  mov %eax, %cr3
  mov $0x20, %eax             # PAE
  mov %eax, %cr4
  mov $0xc0000080, %ecx       # EFER.LME
  rdmsr
  or $0x100, %eax
  wrmsr
  mov $0x80000011, %eax       # PG, ET, PE
  mov %eax, %cr0
  lgdt gdt_pointer
  ljmp $8, $start64
  .code64
start64:
  xor %eax, %eax
  mov %eax, %ds
  mov %eax, %es
  mov $16, %eax
  mov %eax, %ss
  mov $stack_top, %rsp
  call kernel_main
1:cli
  hlt
  jmp 1b

  .balign 8
gdt:
  .quad 0, 0x00209b0000000000, 0x0000930000000000
gdt_pointer:
  .word . - gdt - 1
  .quad gdt

  .bss
  .balign 4096
pml4: .skip 4096
pdpt: .skip 4096
  .skip 16384
stack_top:
