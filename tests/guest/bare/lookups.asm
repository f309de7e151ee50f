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
    MAP 3, test_page + PTE_P + PTE_W    ; and none below it
    mov dword [turns], TURNS
.turn:
    call fill
    call loads
    call stores
    call frames
    call flag_images
    call units
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

%macro BYTES_ARE 2+                     ; address, bytes; then all is as it was
    [section .data]
%%want: db %2
%%end:
    __?SECT?__
    mov rsi, %%want
    mov rdi, %1
    mov ecx, %%end - %%want
    repe cmpsb
    je %%good
    call fail64
%%good:
    call fill
%endmacro

; Over the end of a page: what is stored, what lies beside it, and the flags of what reads and changes.
stores:
    mov r12, EDGE
    mov rax, 0x8877665544332211
    mov [r12 - 3], rax
    BYTES_ARE EDGE - 5, 0x3b, 0x3c, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x45, 0x46
    mov word [r12 - 1], 0xa1b2
    BYTES_ARE EDGE - 2, 0x3e, 0xb2, 0xa1, 0x41
    mov dword [EDGE - 2], 0xa1b2c3d4
    BYTES_ARE EDGE - 3, 0x3d, 0xd4, 0xc3, 0xb2, 0xa1, 0x42
    mov ecx, 0x04030201                 ; registers that a host may need itself
    mov r15, -3
    mov [r12 + r15], ecx
    BYTES_ARE EDGE - 4, 0x3c, 0x01, 0x02, 0x03, 0x04, 0x41
    mov r11, 0x8877665544332211
    mov [r12 - 7], r11
    BYTES_ARE EDGE - 8, 0x38, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x41
    stc
    adc dword [r12 - 1], 0x40000040     ; 4241403f + 40000041
    jno .bad
    jc .bad
    jns .bad
    BYTES_ARE EDGE - 2, 0x3e, 0x80, 0x40, 0x41, 0x82, 0x43
    stc
    inc word [r12 - 1]
    jnc .bad
    BYTES_ARE EDGE - 2, 0x3e, 0x40, 0x40, 0x41
    neg dword [r12 - 2]
    jnc .bad
    BYTES_ARE EDGE - 3, 0x3d, 0xc2, 0xc0, 0xbf, 0xbe, 0x42
    mov ecx, 4
    shl qword [r12 - 4], cl
    BYTES_ARE EDGE - 5, 0x3b, 0xc0, 0xd3, 0xe3, 0xf3, 0x03, 0x14, 0x24, 0x34, 0x44
    mov eax, 0x4241403f
    mov ebx, 0x04030201
    cmpxchg [r12 - 1], ebx
    jne .bad
    cmpxchg [r12 - 1], ebx
    je .bad
    CHECK64 rax, 0x04030201
    BYTES_ARE EDGE - 2, 0x3e, 1, 2, 3, 4, 0x43
    mov eax, 0x04030201
    xchg [r12 - 1], eax                 ; locked, both
    CHECK64 rax, 0x4241403f
    lock add dword [r12 - 1], 0x10
    BYTES_ARE EDGE - 2, 0x3e, 0x11, 2, 3, 4, 0x43
    movups xmm0, [r12 - 40]
    movups [r12 - 5], xmm0
    BYTES_ARE EDGE - 6, 0x3a, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x4b
    movss [r12 - 3], xmm0
    movq [r12 + 2], xmm0                ; beside it, in one page
    BYTES_ARE EDGE - 4, 0x3c, 0x18, 0x19, 0x1a, 0x1b, 0x41, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x4a
    fninit
    fld1
    fstp tword [r12 - 3]
    BYTES_ARE EDGE - 4, 0x3c, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f, 0x47
    btr qword [pt_test + 8], 1          ; where one page may not be written to, nothing is
    invlpg [EDGE]
    PF64 3, EDGE, {mov [r12 - 3], rax}
    bts qword [pt_test + 8], 1
    BYTES_ARE EDGE - 5, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46
    ret
.bad:
    call fail64

; ENTER and LEAVE, with the stack in one page and over the end of one.
%macro FRAME 1                          ; RSP
    mov rsp, %1
    mov rbp, 0x1122334455667788
    stc
    enter 24, 0
    jnc %%bad
    CHECK64 rbp, %1 - 8
    mov r10, rsp
    CHECK64 r10, %1 - 32
    CHECK64 [rbp], 0x1122334455667788
    leave
    CHECK64 rbp, 0x1122334455667788
    mov r10, rsp
    CHECK64 r10, %1
    enter 600, 1
    CHECK64 rbp, %1 - 8
    mov r10, rsp
    CHECK64 r10, %1 - 616
    CHECK64 [rbp], 0x1122334455667788
    CHECK64 [rbp - 8], rbp
    leave
    o16 enter 3, 0
    CHECK64 rbp, 0x1122334455660000 | ((%1 - 2) & 0xffff)
    mov r10, rsp
    CHECK64 r10, %1 - 5
    mov rsp, %1
    mov rbp, 0x1122334455667788
    enter 0, 0
    enter 8, 2                          ; copies the outer frame's pointer
    CHECK64 rbp, %1 - 16
    mov r10, rsp
    CHECK64 r10, %1 - 40
    CHECK64 [rbp - 8], %1 - 8
    CHECK64 [rbp - 16], rbp
    jmp %%good
%%bad:
    call fail64
%%good:
%endmacro

frames:
    mov r13, rbp
    mov r14, rsp
    FRAME EDGE - 1000
    FRAME EDGE + 4
    FRAME EDGE + 20
    mov rsp, r14                        ; the new top must be there
    mov rbp, EDGE
    EXPECT64_BEGIN .no_top
    mov rsp, TEST_BASE + 0x3000 + 128
.top:
    enter 200, 0
.no_top:
    EXPECT64_END 14, 2, .top
    CHECK64 [seen64_cr2], TEST_BASE + 0x3000 - 80
    CHECK64 [seen64_user_rsp], TEST_BASE + 0x3000 + 128
    CHECK64 rbp, EDGE
    mov rbp, r13
    jmp fill

; Images of the flags: arithmetic ones, DF, NT, ID come back; what is restored is what was.
flag_images:
    push qword 0x8d7                    ; CF PF AF ZF SF OF
    popfq
    jnc .bad
    jno .bad
    jnz .bad
    jns .bad
    jnp .bad
    pushfq
    pop rax
    CHECK64 rax, 0x8d7
    push qword 0x400                    ; DF
    popfq
    mov rsi, EDGE - 8
    lodsb
    cmp rsi, EDGE - 9
    jne .bad
    cld
    push qword 0x204002                 ; ID, NT
    popfq
    pushfq
    pop rax
    CHECK64 rax, 0x204002
    push qword 2
    popfq
    pushfq
    pop rax
    CHECK64 rax, 2
    stc
    pushfq                              ; over the end of a page
    pop rax
    mov rbx, rsp
    mov rsp, EDGE + 4
    push rax
    clc
    popfq
    mov rsp, rbx
    jnc .bad
    jmp fill
.bad:
    call fail64

; MXCSR, EMMS, and what needs both files of registers.
units:
    stmxcsr [target + 64]
    mov eax, [target + 64]
    CHECK64 rax, 0x1f80
    mov dword [target + 68], 0x7f80      ; towards 0
    ldmxcsr [target + 68]
    mov rax, 3
    cvtsi2ss xmm0, rax
    mov rax, 2
    cvtsi2ss xmm1, rax
    divss xmm0, xmm1
    cvtss2si rax, xmm0                  ; 1.5
    CHECK64 rax, 1
    ldmxcsr [target + 64]
    cvtss2si rax, xmm0
    CHECK64 rax, 2
    mov dword [target + 72], 0x20000     ; reserved, or AMD's own
    FAULT64 13, 0, ldmxcsr [target + 72]
    stmxcsr [EDGE - 2]
    mov eax, [EDGE - 2]
    CHECK64 rax, 0x1fa0                 ; PE
    call fill
    ldmxcsr [target + 64]
    movq mm1, [EDGE - 4]
    movq2dq xmm2, mm1
    movq rax, xmm2
    CHECK64 rax, 0x434241403f3e3d3c
    paddb mm1, mm1
    movdq2q mm3, xmm2
    movq rax, mm3
    CHECK64 rax, 0x434241403f3e3d3c
    emms
    fwait
    fnstenv [target]
    movzx eax, word [target + 8]
    CHECK64 rax, 0xffff                 ; all empty
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
    std                                 ; downwards: within a page, onto itself, over the edge
    REP_TEST EDGE - 2, target + 6, 7, rep movsb, EDGE - 9, target - 1
    CHECK64 [target], 0xee3e3d3c3b3a3938
    REP_TEST EDGE - 8, target + 16, 2, rep movsq, EDGE - 24, target
    CHECK64 [target + 16], 0x3f3e3d3c3b3a3938
    CHECK64 [target + 8], 0x3736353433323130
    REP_TEST EDGE - 12, EDGE - 10, 8, rep movsw, EDGE - 28, EDGE - 26
    CHECK64 [EDGE - 16], 0x3534333231302f2e
    mov rax, 0x0102030405060708
    REP_TEST 1, target + 24, 3, rep stosd, 1, target + 12
    CHECK64 [target + 20], 0x0506070805060708
    REP_TEST 1, EDGE + 1, 3, rep stosb, 1, EDGE - 2
    CHECK64 [EDGE - 4], 0x43420808083e3d3c
    REP_TEST EDGE + 1, target + 6, 4, rep movsb, EDGE - 3, target + 2
    cld
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
