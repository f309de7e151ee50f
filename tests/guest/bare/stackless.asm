; RSP as an ordinary register: a long loop with an address in it that is not canonical, which nothing dereferences. Host
; interrupts come meanwhile; each turn is counted in memory and in a register.
%include "long.inc"
bits 64
TURNS equ 10000000
main64:
    mov [saved], rsp
    mov rsp, 0x8000000000000000
    pxor xmm3, xmm3
    movq xmm4, [one]
    xor eax, eax
    mov ecx, TURNS
.more:
    inc qword [count]
    add rax, 1
    paddq xmm3, xmm4
    dec ecx
    jnz .more
    mov rdx, rsp
    mov rsp, [saved]
    mov rbx, 0x8000000000000000
    CHECK64 rdx, rbx
    CHECK64 rax, TURNS
    mov rax, [count]
    CHECK64 rax, TURNS
    movq rax, xmm3
    CHECK64 rax, TURNS
    ret
section .data
align 4096                              ; away from code: writes beside it are slow
count: dq 0
    times 4096 - 8 db 0
saved: dq 0
one: dq 1
section .text
