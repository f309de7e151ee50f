; What 64-bit code means by vendor: the guest asks CPUID whose CPU it is told to be on and expects that maker's way. AMD's was measured
; (docs/cpu-model.md, "Vendors"), Intel's is the SDM's.
%include "long.inc"
bits 64

%macro UD 1+
    EXPECT64_BEGIN %%after
%%site:
    %1
    call fail64
%%after:
    EXPECT64_END 6, NONE64, %%site
%endmacro

; PLACE to, from: copies the snippet `from`..`from_end` of .data to the low address `to`
%macro PLACE 2
    mov rsi, %2
    mov edi, %1
    mov ecx, %2_end - %2
    rep movsb
%endmacro

; BY_VENDOR register, AMD's value, Intel's value
%macro BY_VENDOR 3
    mov r10, %2
    mov r11, %3
    test r8, r8
    cmovz r10, r11
    CHECK64 %1, r10
%endmacro

; RUN address: calls it; the snippets find RSP in R9
%macro RUN 1
    mov ecx, %1
    lea r9, [rsp - 8]
    call rcx
%endmacro

main64:
    xor eax, eax
    cpuid
    xor r8d, r8d                        ; 1: AMD
    cmp ebx, 'Auth'
    sete r8b
    cmp ebx, 'Hygo'
    jne .known
    mov r8d, 1
.known:

    ; near branches
    PLACE 0x8000, jump
    xor eax, eax
    RUN 0x8000
    movzx eax, al
    BY_VENDOR rax, 1, 0
    PLACE 0x8040, conditional
    xor eax, eax                        ; ZF
    RUN 0x8040
    movzx eax, al
    BY_VENDOR rax, 1, 0

    PLACE 0x8100, call_near
    xor eax, eax
    RUN 0x8100
    movzx r14d, word [rdx]              ; CHECK64 writes below RSP
    movzx eax, al
    BY_VENDOR rax, 1, 0
    mov rax, r9
    sub rax, rdx
    BY_VENDOR rax, 2, 8
    BY_VENDOR r14, 0x8104, 0x8106

    PLACE 0x8180, return_near
    PLACE 0x8200, land
    RUN 0x8180
    mov rax, r9
    sub rax, rdx
    BY_VENDOR rax, 6, 0
    PLACE 0x81a0, return_release        ; RET 8
    RUN 0x81a0
    sub rdx, r9
    BY_VENDOR rdx, 2, 8

    PLACE 0x8300, land
    PLACE 0x18300, land_far
    PLACE 0x8380, jump_register
    xor eax, eax
    RUN 0x8380
    BY_VENDOR rax, 0x18300, 0x18301
    PLACE 0x83a0, jump_memory
    RUN 0x83a0
    BY_VENDOR rax, 0x18300, 0x18301

    ; LOOP with REP
    mov ecx, 5
    or eax, 1                           ; ZF = 0
    db 0xf3, 0xe0, 2                    ; LOOPNE, on AMD LOOPE
    jmp .not_taken
    mov ecx, 0x55
.not_taken:
    BY_VENDOR rcx, 4, 0x55
    mov ecx, 5
    xor eax, eax                        ; ZF = 1
    db 0xf2, 0xe1, 2                    ; LOOPE, on AMD LOOPNE
    jmp .not_taken2
    mov ecx, 0x55
.not_taken2:
    BY_VENDOR rcx, 4, 0x55

    ; XCHG that looks like PAUSE
    mov r12, r8
    mov eax, 1
    mov r8d, 2
    db 0xf3, 0x41, 0x90                 ; to Intel's it is PAUSE
    mov r13, r8
    mov r8, r12
    BY_VENDOR rax, 2, 1
    BY_VENDOR r13, 1, 2

    ; prefetch of a register
    test r8, r8
    jz .intel_prefetch
    UD db 0x0f, 0x0d, 0xc8
    jmp .prefetched
.intel_prefetch:
    db 0x0f, 0x0d, 0xc8
.prefetched:
    UD db 0x0f, 0xff
    UD db 0x0f, 0xb9

    ; far pointers with REX.W
    mov rbx, pointer
    test r8, r8
    jz .intel_far
    db 0x4c, 0x0f, 0xb5, 0x2b           ; LGS R13, [RBX]
    CHECK64 r13, 0x04030201
    lea rax, [.arrived]
    mov [pointer32], eax
    mov rbx, pointer32
    db 0x48, 0xff, 0x2b                 ; JMP FAR [RBX]
    call fail64
.arrived:
    lea rax, [.called]
    mov [pointer32], eax
    mov r9, rsp
    db 0x48, 0xff, 0x1b                 ; CALL FAR [RBX]: 8 bytes each all the same
    call fail64
.called:
    mov r14, [rsp + 8]
    mov rdx, rsp
    mov rsp, r9
    sub r9, rdx
    CHECK64 r9, 16
    CHECK64 r14, SEL_CODE64
    jmp .far_done
.intel_far:
    mov rbx, pointer64
    lea rax, [.arrived64]
    mov [pointer64], rax
    db 0x48, 0xff, 0x2b
    call fail64
.arrived64:
.far_done:

    ; MOVSXD of 16 bits
    mov qword [pt_test], 0x8000 | PTE_P | PTE_W
    invlpg [TEST_BASE]
    mov rdi, TEST_BASE + 0xffe
    mov word [rdi], 0x1234
    test r8, r8
    jz .intel_movsxd
    EXPECT64_BEGIN .movsxd_done
.movsxd:
    db 0x66, 0x63, 0x07                 ; reads 4 bytes
    call fail64
.movsxd_done:
    EXPECT64_END 14, 0, .movsxd
    jmp .out
.intel_movsxd:
    xor eax, eax
    db 0x66, 0x63, 0x07
    CHECK64 rax, 0x1234
.out:
    ret

section .data
align 16
jump:                                   ; at 8000
    db 0x66, 0xe9, 0x10, 0x00, 0x00, 0x00   ; AMD: to 8014; Intel: to 8016
    times 14 db 0xcc
    mov al, 1                           ; 8014
    ret                                 ; 8016
jump_end:
conditional:                            ; at 8040
    db 0x66, 0x0f, 0x84, 0x10, 0x00, 0x00, 0x00  ; AMD: to 8055; Intel: to 8057
    times 14 db 0xcc
    mov al, 1                           ; 8055
    ret
conditional_end:
call_near:                              ; at 8100
    db 0x66, 0xe8, 0x06, 0x00, 0x00, 0x00   ; AMD: to 810a; Intel: to 810c
    times 4 db 0xcc
    mov al, 1                           ; 810a
    mov rdx, rsp
    mov rsp, r9
    ret
call_near_end:
return_near:                            ; at 8180
    push strict dword 0x8200
    db 0x66, 0xc3
return_near_end:
return_release:                         ; at 81a0
    push strict dword 0x8200
    db 0x66, 0xc2, 8, 0
return_release_end:
land:
    mov rdx, rsp
    mov rsp, r9
    ret
land_end:
land_far:
    inc eax
    mov rdx, rsp
    mov rsp, r9
    ret
land_far_end:
jump_register:
    mov eax, 0x18300
    db 0x66, 0xff, 0xe0
jump_register_end:
jump_memory:
    mov eax, 0x18300
    mov rdx, target
    db 0x66, 0xff, 0x22
jump_memory_end:
align 8
target: dq 0x18300
pointer: db 1, 2, 3, 4, 0, 0, 7, 8, 5, 6
align 8
pointer32: dd 0
    dw SEL_CODE64
    dw 0xffff
    dw 0xffff
align 8
pointer64: dq 0
    dw SEL_CODE64
section .text
