; AMD has no m16:64 far pointer: REX.W on JMP and CALL FAR and on LSS, LFS, LGS leaves 32 bits of offset, the selector at +4 (APM vol. 3
; JMP far, LxS). Firmware and kernels that rely on m16:64 hang on real AMD machines.
%include "long.inc"
bits 64
main64:
    xor eax, eax
    cpuid
    cmp ebx, 'Auth'
    jne .out
    mov rbx, pointer
    db 0x4c, 0x0f, 0xb5, 0x03           ; lgs r8, [rbx]
    mov rax, r8
    mov ebx, 0x04030201
    CHECK64 rax, rbx
.out:
    ret
section .data
align 8
pointer: db 1, 2, 3, 4, 0, 0, 7, 8, 5, 6
section .text
