; A 66 prefix on a near branch in 64-bit mode: AMD obeys it (rel16, RIP cut to 16 bits: APM vol. 3 1.2.2), Intel ignores it (rel32).
; The guest is told the host's vendor and expects that maker's way. vendor64.asm has the other branches.
%include "long.inc"
bits 64
main64:
    xor eax, eax
    cpuid
    mov r8d, ebx                        ; "Auth" or "Genu"
    mov rsi, code
    mov edi, 0x8000
    mov ecx, code_end - code
    rep movsb
    xor eax, eax
    mov ecx, 0x8000
    call rcx
    movzx eax, al
    xor ebx, ebx
    cmp r8d, 'Auth'
    sete bl
    CHECK64 rax, rbx
    ret
section .data
code:
    db 0x66, 0xe9, 0x10, 0x00, 0x00, 0x00   ; AMD: to 0x8014; Intel: to 0x8016
    times 14 db 0xcc
    mov al, 1                           ; 0x8014
    ret                                 ; 0x8016
code_end:
section .text
