; The same code at several linear addresses, as libraries are: what it says of its own place must be right at each. RIP-relative
; loads, stores and LEA, return addresses, FIP, branches within and out of the page, and an alias that goes away and comes back.
%include "long.inc"

%define TIMES 300
%define ROUNDS 3
%define ALIASES 5

main64:
    fninit
    mov dword [pdpt_alias], pd_low + 7
%assign i 1
%rep 255
    mov dword [pml4 + i * 8], pdpt_alias + 7
%assign i i + 1
%endrep
    mov rax, cr3
    mov cr3, rax
    mov r12d, ROUNDS
.round:
    xor r13d, r13d
.alias:
    mov rdi, [aliases + r13 * 8]
    mov r14d, TIMES
.again:
    lea rax, [rdi + probe]
    call rax
    dec r14d
    jnz .again
    inc r13d
    cmp r13d, ALIASES
    jne .alias
    mov rax, cr3                        ; what was found out about mappings is forgotten
    mov cr3, rax
    dec r12d
    jnz .round
    CHECK64 [counter], TIMES * ROUNDS * ALIASES
    ; the last alias now leads to other bytes in the same place
    mov rsi, probe_page
    mov rdi, other_page
    mov ecx, 4096 / 8
    rep movsq
    mov dword [other_page + (answer - probe_page) + 1], 77
    mov rax, other_page
    or rax, PTE_P + PTE_W
    mov [pt_test], rax
    invlpg [TEST_BASE]
    mov r14d, TIMES
.other:
    mov rax, TEST_BASE + (answer - probe_page)
    call rax
    CHECK64 rax, 77
    mov rdi, [aliases]
    lea rax, [rdi + answer]
    call rax
    CHECK64 rax, 42
    dec r14d
    jnz .other
    ret

align 4096
probe_page:
answer:
    mov eax, 42
    ret

probe:                                  ; rdi: what the address is more than the label says
    lea rax, [rel probe]
    sub rax, rdi
    CHECK64 rax, probe
    mov rax, [rel value]
    mov rdx, 0x1122334455667788
    CHECK64 rax, rdx
    inc qword [rel counter]
    cmp dword [rel value + 4], 0x11223344
    jne .bad
    call .pushed
.pushed:
    pop rax
    sub rax, rdi
    CHECK64 rax, .pushed
.x87:
    fld1
    fnstenv [rel area]                  ; FXSAVE shows AMD's FIP only with an exception pending
    fstp st0
    mov eax, [rel area + 12]
    sub eax, edi
    CHECK64 rax, .x87
    movaps xmm0, [rel pair]
    paddq xmm0, [rel pair]
    movq rax, xmm0
    CHECK64 rax, 18
    lea rax, [rel .there]
    jmp rax
.bad:
    call fail64
.there:
    sub rsp, 0x20
    mov [rsp + 8], rdi
    lea rcx, [rel .there]
    mov [rsp + 0x10], rcx
    mov rax, [rsp + 8]
    mov rdx, [rsp + 0x10]
    add rsp, 0x20
    CHECK64 rax, rdi
    sub rdx, rdi
    CHECK64 rdx, .there
    call next_page
    CHECK64 rax, 0x5555
    jmp other_end

align 4096
next_page:
    mov eax, 0x5555
    cmp [rel value], rax
    je probe.bad
    ret
other_end:
    ret

section .data
align 16
pair: dq 9, 11
value: dq 0x1122334455667788
counter: dq 0
aliases: dq 0x5500_0000_0000, 0x7f80_0000_0000, 0x0080_0000_0000, 0, 0x0200_0000_0000

section .bss
alignb 4096
pdpt_alias: resb 4096
other_page: resb 4096
alignb 16
area: resb 512
section .text
