; What code that runs often finds on short ways: accesses over the end of a page into a frame that lies elsewhere, short REPs, bit
; strings, stack forms, jumps whose targets share a slot. Everything runs many times, so that a translator has it all.
%include "long.inc"

%define EDGE (TEST_BASE + 0x1000)
%define TURNS 200
%define FAR_FIRST 0x600000              ; RAM beyond the guest, mapped one to one
%define FAR_SECOND (FAR_FIRST + 0x20000)

%macro MAP 2
    mov rax, %2
    mov [pt_test + %1 * 8], rax
    invlpg [TEST_BASE + %1 * 4096]
%endmacro

main64:
    MAP 0, test_page2 + PTE_P + PTE_W   ; in the wrong order: what crosses is in two places
    MAP 1, test_page + PTE_P + PTE_W
    mov dword [turns], TURNS
.turn:
    call fill
    call loads
    call strings
    call bits_of_memory
    call stack_forms
    call loops
    call far_targets
    dec dword [turns]
    jnz .turn
    call far_code_changes
    ret

fill:                                   ; EDGE - 64 .. EDGE + 63: 0 .. 127
    mov rdi, EDGE - 64
    xor eax, eax
.next:
    stosb
    inc eax
    cmp eax, 128
    jne .next
    mov rdi, target
    mov al, 0xee
    mov ecx, 64
    rep stosb
    ret

loads:
    xor eax, eax
    stc                                 ; the flags stay
    mov ax, [EDGE - 1]
    jnc .bad
    CHECK64 rax, 0x403f
    mov eax, [EDGE - 3]
    CHECK64 rax, 0x403f3e3d
    mov r12, EDGE
    mov rax, [r12 - 5]
    CHECK64 rax, 0x4241403f3e3d3c3b
    mov r11, 3
    mov r10, [r12 + r11 * 2 - 7]
    CHECK64 r10, 0x464544434241403f
    movzx eax, byte [r12 - 1]           ; no crossing beside one
    mov rax, [r12 - 1]
    CHECK64 rax, 0x464544434241403f
    movups xmm0, [r12 - 9]
    movq rax, xmm0
    psrldq xmm0, 8
    movq rbx, xmm0
    CHECK64 rax, 0x3e3d3c3b3a393837
    CHECK64 rbx, 0x464544434241403f
    mov rax, 1
    add rax, [r12 - 4]
    CHECK64 rax, 0x434241403f3e3d3d
    fninit
    fild qword [r12 - 2]
    fistp qword [target]
    CHECK64 [target], 0x4544434241403f3e
    ; stack and jumps
    mov rbp, rsp
    lea rsp, [r12 - 4]
    pop rax
    mov rsp, rbp
    CHECK64 rax, 0x434241403f3e3d3c
    mov qword [r12 - 6], .there
    jmp [r12 - 6]
.bad:
    call fail64
.there:
    mov rax, [r12 - 6]
    CHECK64 rax, .there
    jmp fill

%macro REP_TEST 6                       ; RSI, RDI, RCX, instruction, RSI after, RDI after
    mov rsi, %1
    mov rdi, %2
    mov rcx, %3
    %4
    CHECK64 rsi, %5
    CHECK64 rdi, %6
%endmacro

strings:
    REP_TEST EDGE - 32, target, 7, rep movsb, EDGE - 25, target + 7
    CHECK64 [target], 0xee26252423222120
    REP_TEST EDGE - 3, target, 7, rep movsb, EDGE + 4, target + 7     ; the source crosses
    CHECK64 [target], 0xee434241403f3e3d
    REP_TEST EDGE - 8, target + 8, 1, rep movsq, EDGE, target + 16
    CHECK64 [target + 8], 0x3f3e3d3c3b3a3938
    REP_TEST target, EDGE - 2, 4, rep movsb, target + 4, EDGE + 2     ; the target does
    CHECK64 [EDGE - 2], 0x45444342403f3e3d
    REP_TEST EDGE - 32, target, 0, rep movsw, EDGE - 32, target
    mov rax, 0x0102030405060708
    REP_TEST 1, target, 3, rep stosw, 1, target + 6
    CHECK64 [target], 0xee43070807080708
    REP_TEST 1, EDGE - 4, 1, rep stosq, 1, EDGE + 4
    CHECK64 [EDGE - 4], rax
    call fill
    xor eax, eax
    REP_TEST EDGE - 8, 1, 3, rep lodsb, EDGE - 5, 1
    CHECK64 rax, 0x3a
    stc
    mov rsi, EDGE - 16
    mov rdi, EDGE - 16
    mov ecx, 0
    rep lodsd
    jnc .bad
    mov ecx, 5
    repe cmpsb
    jne .bad
    CHECK64 rdi, EDGE - 11
    CHECK64 rcx, 0
    mov ecx, 16
    lea rdi, [rsi - 1]
    repe cmpsb                          ; 0x35 and 0x34
    je .bad
    jb .bad
    CHECK64 rcx, 15
    mov al, 0x38
    mov rdi, EDGE - 16
    mov ecx, 20
    repne scasb
    jne .bad
    CHECK64 rdi, EDGE - 7
    CHECK64 rcx, 11
    mov al, 0x41                        ; beyond the edge
    mov rdi, EDGE - 3
    mov ecx, 20
    repne scasb
    jne .bad
    CHECK64 rdi, EDGE + 2
    ; one by one, over the edge and back
    mov rsi, EDGE - 2
    mov rdi, target
    movsd
    CHECK64 rsi, EDGE + 2
    CHECK64 rdi, target + 4
    std
    movsb
    movsq
    cld
    CHECK64 rsi, EDGE - 7
    CHECK64 rdi, target - 5
    mov rsi, EDGE - 4
    lodsq
    CHECK64 rax, 0x434241403f3e3d3c
    mov rdi, EDGE - 4
    scasq
    jne .bad
    mov rsi, EDGE - 4
    mov rdi, EDGE - 3
    cmpsd
    jae .bad
    CHECK64 rdi, EDGE + 1
    mov rdi, EDGE - 1
    stosw
    mov ax, [EDGE - 1]
    movzx eax, ax
    CHECK64 rax, 0x3d3c
    jmp fill
.bad:
    call fail64

bits_of_memory:
    mov r12, EDGE
    mov rax, -3                         ; bit 5 of 0x3f
    bt [r12], rax
    jnc .bad
    mov rax, -1
    bt [r12], rax
    jc .bad
    bts [r12], rax
    jc .bad
    movzx ebx, byte [r12 - 1]
    CHECK64 rbx, 0xbf
    lock btr [r12], rax
    jnc .bad
    mov r15, 70                         ; bit 6 of 0x48
    bt [r12], r15
    jnc .bad
    btc qword [r12], r15
    jnc .bad
    movzx ebx, byte [r12 + 8]
    CHECK64 rbx, 0x08
    mov eax, -32
    lock bts dword [r12 + 4], eax       ; bit 0 of 0x40
    jc .bad
    movzx ebx, byte [r12]
    CHECK64 rbx, 0x41
    mov eax, 0x1fff0                    ; of 16 bits: -16
    bt word [r12], ax                   ; bit 0 of 0x3e
    jc .bad
    mov rbx, EDGE - 1
    mov eax, 0xffffff02
    xlatb
    CHECK64 rax, 0xffffff41
    jmp fill
.bad:
    call fail64

stack_forms:
    mov rax, 0x1122334455667788
    mov r11, 0x99aabbccddeeff00
    mov rbp, rsp
    mov rbx, -1
    mov r10, -1
    push ax
    push r11w
    pop bx
    pop r10w
    cmp rsp, rbp
    jne .bad
    CHECK64 rbx, 0xffffffffffffff00
    CHECK64 r10, 0xffffffffffff7788
    push 1
    push 2
    pop qword [rsp]                     ; over the 1: by RSP behind the pop
    pop rax
    CHECK64 rax, 2
    push 3
    pop qword [target + 8]
    CHECK64 [target + 8], 3
    mov rcx, target
    push 4
    pop qword [rcx + 16]
    push qword [rcx + 16]
    pop r15
    CHECK64 r15, 4
    ret
.bad:
    call fail64

loops:
    mov ecx, 10
    xor ebx, ebx
.equal:
    inc ebx
    cmp ebx, ebx
    loope .equal
    CHECK64 rbx, 10
    mov ecx, 10
    xor ebx, ebx
.until:
    inc ebx
    cmp ebx, 4
    loopne .until
    CHECK64 rbx, 4
    CHECK64 rcx, 6
    cmp ebx, 5
    mov ecx, 3
    loope .bad
    CHECK64 rcx, 2
    ret
.bad:
    call fail64

write_far:                              ; RDI: where; EAX: what it returns
    mov byte [rdi], 0xb8                ; MOV EAX, imm32
    mov [rdi + 1], eax
    mov byte [rdi + 5], 0xc3
    ret

far_targets:
    cmp dword [turns], TURNS
    jne .written
    mov eax, 111
    mov edi, FAR_FIRST
    call write_far
    mov eax, 222
    mov edi, FAR_SECOND
    call write_far
.written:
    mov ecx, 4
.again:
    mov edx, FAR_FIRST
    call rdx
    CHECK64 rax, 111
    mov edx, FAR_SECOND
    call rdx
    CHECK64 rax, 222
    loop .again
    ret

; What has been displaced, and is written anew, is not run as it was.
far_code_changes:
    mov eax, 333
    mov edi, FAR_FIRST
    call write_far
    mov edx, FAR_SECOND
    call rdx
    CHECK64 rax, 222
    mov edx, FAR_FIRST
    call rdx
    CHECK64 rax, 333
    ret

section .data
turns: dd 0
section .bss
alignb 64
resb 64
target: resb 128
section .text
