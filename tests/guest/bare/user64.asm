; A 64-bit program as Linux runs it: the selectors, control registers and flags with which user code may run directly
; (docs/cages.md). What it computes must be what ring 0 computes, and every way out of it the manual's. "text" on the command
; line: it reads an instruction of its own that engines replace.
%include "long.inc"

%define MSR_STAR 0xc0000081
%define MSR_LSTAR 0xc0000082
%define MSR_FMASK 0xc0000084
%define MSR_FS_BASE 0xc0000100
%define KERNEL_CODE 0x08
%define USER_DATA 0x2b
%define USER_CODE 0x33
%define IF 0x200
%define ROUNDS 20000
%define STUB 0x2f5a3c710000
%define NEAR_STUB (STUB - 0x20000000)

%macro WRMSR64 2
    mov ecx, %1
    mov rax, %2
    mov rdx, rax
    shr rdx, 32
    wrmsr
%endmacro

; Runs the code at a label until an exception, which must be this one. RAX..R15 are the program's.
%macro PROGRAM 2                        ; vector, label
    EXPECT64_BEGIN %%after
    push qword USER_DATA
    push qword user_stack_top
    push qword IF | 2
    push qword USER_CODE
    push qword %2
    iretq
%%after:
    mov qword [resume64], 0
    CHECK64 [seen64_vector], %1
%endmacro

main64:
    mov eax, 1
    cpuid
    bt ecx, 26                          ; XSAVE: without it nothing of this runs directly
    jnc .skip
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    lgdt [own_gdt_pointer]
    mov rdi, idt + 2
    mov ecx, 256
.gate:
    mov word [rdi], KERNEL_CODE
    add rdi, 16
    loop .gate
    push qword KERNEL_CODE
    push qword .own
    retfq
.own:
    mov rax, cr4
    or eax, 1 << 18                     ; OSXSAVE
    mov cr4, rax
    mov eax, 0xd
    xor ecx, ecx
    cpuid
    and eax, 0xe7
    xor edx, edx
    xor ecx, ecx
    xsetbv
    mov rax, cr0
    or eax, 1 << 18                     ; AM
    mov cr0, rax
    WRMSR64 MSR_STAR, (0x0020 << 48) | (KERNEL_CODE << 32)
    WRMSR64 MSR_FMASK, 0x44700          ; AC, NT, DF, IF, TF
    WRMSR64 MSR_LSTAR, system_call
    WRMSR64 MSR_FS_BASE, own_data
    mov eax, [multiboot_info]
    mov esi, [rax + 16]
.word:
    cmp dword [rsi], 'text'
    je .text
    inc rsi
    cmp byte [rsi + 3], 0
    jne .word
    STEP computing
    STEP strings
    STEP system_calls
    STEP exceptions
    STEP page_faults
    STEP what_shows_the_host
    STEP single_step
    STEP flags
    STEP where_the_stub_is
.skip:
    ret
.text:
    STEP own_text
    ret

computing:
    call work
    mov [expected_work], rax
    PROGRAM 0x30, user_work
    CHECK64 rax, [expected_work]
    PROGRAM 0x30, user_work             ; and again, with all that it touches in place
    CHECK64 rax, [expected_work]
    ret

strings:
    mov rdi, buffer
    mov ecx, 16384 / 8
    xor eax, eax
    rep stosq
    PROGRAM 0x30, user_strings
    mov rsi, buffer
    mov ecx, 16384 / 8
    xor ebx, ebx
.sum:
    lodsq
    add rbx, rax
    loop .sum
    mov rax, 0x0101010101010101 * 3
    imul rax, rax, 16384 / 8
    CHECK64 rbx, rax
    ret

system_calls:
    xor r12, r12
    PROGRAM 0x30, user_calls
    CHECK64 r12, 200
    CHECK64 r13, 200
    ret

exceptions:
    PROGRAM 0, user_divide
    CHECK64 [seen64_ip], user_divide.at
    PROGRAM 6, user_undefined
    CHECK64 [seen64_ip], user_undefined
    PROGRAM 13, user_privileged
    CHECK64 [seen64_error], 0
    CHECK64 [seen64_ip], user_privileged
    PROGRAM 3, user_breakpoint
    CHECK64 [seen64_ip], user_breakpoint + 1
    PROGRAM 13, user_non_canonical
    CHECK64 [seen64_ip], user_non_canonical.at
    PROGRAM 17, user_unaligned
    CHECK64 [seen64_ip], user_unaligned.at
    PROGRAM 19, user_simd
    CHECK64 [seen64_ip], user_simd.at
    ret

; A page that is not there, is then, is read-only, is writable.
page_faults:
    PROGRAM 14, user_read
    CHECK64 [seen64_error], 4
    CHECK64 [seen64_cr2], TEST_BASE + 0x123
    mov qword [test_page + 0x123], 0x77
    mov qword [pt_test], test_page + PTE_P + PTE_U
    PROGRAM 0x30, user_read
    CHECK64 rax, 0x77
    PROGRAM 14, user_write
    CHECK64 [seen64_error], 7
    mov qword [pt_test], test_page + PTE_P + PTE_U + PTE_W
    invlpg [TEST_BASE]
    PROGRAM 0x30, user_write
    CHECK64 [test_page + 0x123], 0x78
    mov rax, [pt_test]
    and eax, PTE_A | PTE_D
    CHECK64 rax, PTE_A | PTE_D
    mov qword [pt_test], test_page2 + PTE_P + PTE_U
    invlpg [TEST_BASE]
    mov qword [test_page2 + 0x123], 0x99
    PROGRAM 0x30, user_read
    CHECK64 rax, 0x99
    mov qword [pt_test], 0
    invlpg [TEST_BASE]
    PROGRAM 14, user_read
    ret

what_shows_the_host:
    mov eax, 0
    cpuid
    mov [expected], rbx
    PROGRAM 0x30, user_cpuid
    CHECK64 rbx, [expected]
    PROGRAM 0x30, user_clock
    CHECK64 rax, 1
    xor ecx, ecx
    xgetbv
    mov [expected], rax
    PROGRAM 0x30, user_xgetbv
    CHECK64 rax, [expected]
    PROGRAM 0x30, user_fs
    CHECK64 rax, 0x5555
    PROGRAM 0x30, user_xsave
    ret

single_step:
    PROGRAM 1, user_steps
    CHECK64 [seen64_ip], user_steps.behind
    CHECK64 rcx, 1
    PROGRAM 1, user_steps_over_popf     ; which clears TF itself
    CHECK64 [seen64_ip], user_steps_over_popf.behind
    mov rax, [seen64_flags]
    and eax, 0x100
    CHECK64 rax, 0
    PROGRAM 1, user_steps_into_rep
    CHECK64 [seen64_ip], user_steps_into_rep.at
    CHECK64 rcx, 2
    ret

; Whatever a program may set is there when it goes on, and nothing to whoever serves it. RAX: what it had after a call.
flags:
    PROGRAM 0x30, user_flags
    and eax, 0x44cd5
    CHECK64 rax, 0x44cd5
    mov rax, [seen64_flags]
    and eax, 0x44cd5
    CHECK64 rax, 0x44cd5
    PROGRAM 14, user_clears_ac
    mov rax, [seen64_flags]
    and eax, 0x40000
    CHECK64 rax, 0
    PROGRAM 0x30, user_flags
    call work                           ; leaves zeros
    PROGRAM 0x30, user_work
    CHECK64 rax, [expected_work]
    ret

; Memory where a cage has its stub (src/cage/layout.h) is memory to the program, and no slower.
where_the_stub_is:
    mov rdi, pml4 + (STUB >> 39 & 511) * 8
    mov qword [rdi], stub_pdpt + 7
    mov qword [stub_pdpt + (STUB >> 30 & 511) * 8], stub_pd + 7
    mov qword [stub_pd + (STUB >> 21 & 511) * 8], stub_pt + 7
    mov qword [stub_pd + (NEAR_STUB >> 21 & 511) * 8], near_pt + 7
    mov qword [near_pt + (NEAR_STUB >> 12 & 511) * 8], test_page2 + 7
    mov qword [stub_pt + (STUB >> 12 & 511) * 8], test_page + 7
    mov qword [stub_pt + (STUB + 0x1000 >> 12 & 511) * 8], test_page + 7
    mov qword [test_page], 5
    PROGRAM 0x30, user_is_near
    PROGRAM 0x30, user_reads_there      ; what it could read and write of the stub
    CHECK64 rax, 5
    PROGRAM 0x30, user_counts_there
    CHECK64 [test_page], 20005
    ret

own_text:
    PROGRAM 0x30, user_cpuid
    PROGRAM 0x30, user_reads_text
    ret

system_call:
    inc r12
    o64 sysret

align 4096
; -- Ring 3. RAX: a sum of integer, vector and x87 work on memory. --
work:
    xor eax, eax
    mov ecx, ROUNDS
    mov rdi, buffer
    pxor xmm0, xmm0
    fninit
    fldz
.round:
    mov edx, ecx
    imul edx, edx, 40503
    and edx, 16384 - 16
    xor eax, ecx
    rol rax, 7
    add [rdi + rdx], rax
    movdqu xmm1, [rdi + rdx]
    paddq xmm0, xmm1
    pshufd xmm0, xmm0, 0x39
    mov [count], ecx
    fiadd dword [count]
    adc rax, [rdi + rdx + 8]
    bsf r8, rax
    lea rax, [rax + r8 * 2]
    test ecx, 7
    jnz .next
    push rax
    xor [rsp], rcx
    pop rax
.next:
    dec ecx
    jnz .round
    fistp qword [sum]
    add rax, [sum]
    movq r8, xmm0
    add rax, r8
    mov ecx, 16384 / 8
.clear:
    mov qword [rdi], 0
    add rdi, 8
    dec ecx
    jnz .clear
    ret
user_work:
    call work
    int 0x30
user_strings:
    mov rdi, buffer
    mov ecx, 16384
    mov al, 1
    rep stosb
    mov rsi, buffer
    mov rdi, buffer2
    mov ecx, 16384 / 8
    rep movsq
    mov ecx, 16384
.add:
    add byte [buffer + rcx - 1], 2
    dec ecx
    jnz .add
    mov rsi, buffer2
    mov rdi, buffer2
    mov ecx, 16384
    repe cmpsb
    jne .wrong
    int 0x30
.wrong:
    ud2
user_calls:
    xor r13d, r13d
.again:
    mov eax, 39
    syscall
.behind:
    cmp rcx, .behind
    jne .wrong
    pushfq
    pop rax
    xor rax, r11
    test eax, ~0x8d5                    ; CMP has changed these
    jnz .wrong
    inc r13d
    cmp r13d, 200
    jne .again
.wrong:
    int 0x30
user_divide:
    xor ecx, ecx
    mov eax, 1
    xor edx, edx
.at:
    div ecx
user_undefined:
    ud2
user_privileged:
    hlt
user_breakpoint:
    int3
user_non_canonical:
    mov rax, 1 << 62
.at:
    mov rax, [rax]
user_unaligned:
    pushfq
    or dword [rsp], 1 << 18
    popfq
.at:
    mov eax, [buffer + 1]
user_simd:
    mov dword [count], 0x1f80 & ~(1 << 9)
    ldmxcsr [count]
    mov eax, 1
    cvtsi2sd xmm0, eax
    pxor xmm1, xmm1
.at:
    divsd xmm0, xmm1
user_read:
    mov rax, [TEST_BASE + 0x123]
    int 0x30
user_write:
    inc qword [TEST_BASE + 0x123]
    int 0x30
user_fs:
    mov rax, [fs:0]
    int 0x30
; Enough code before and behind what is replaced for it to be certain.
user_cpuid:
    mov rsi, buffer
    mov edi, 3
    mov rax, rsi
    add rax, rdi
    sub rax, rsi
    mov r8, rax
    mov r9, r8
    add r9, r8
    mov r10, r9
    sub r10, r8
    mov [count], r10d
    mov r11d, [count]
    add r11, r10
    mov r12, r11
    sub r12, r10
    mov r13, r12
    add r13, r12
    mov r14, r13
    sub r14, r12
    mov r15, r14
    add r15, r14
    mov rbx, r15
    xor ecx, ecx
    xor eax, eax
user_cpuid_itself:
    cpuid
    mov rsi, rbx
    mov rdi, rsi
    mov r8, rdi
    mov r9, r8
    add r9, r8
    mov r10, r9
    sub r10, r8
    mov r11, r10
    mov [count], r11d
    mov r12d, [count]
    mov r13, r12
    mov r14, r13
    mov r15, r14
    mov rbx, rsi
    int 0x30
user_clock:
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov r8, rax
    mov ecx, 1000
.wait:
    dec ecx
    jnz .wait
    rdtsc
    shl rdx, 32
    or rax, rdx
    cmp r8, rax
    setb al
    movzx eax, al
    int 0x30
user_xgetbv:
    xor ecx, ecx
    xgetbv
    int 0x30
user_xsave:
    pcmpeqd xmm3, xmm3
    mov eax, 3
    xor edx, edx
    mov rdi, save_area
    xsave [rdi]
    pxor xmm3, xmm3
    xrstor [rdi]
    movq rax, xmm3
    inc rax
    jnz .wrong
    int 0x30
.wrong:
    ud2
user_steps:
    xor ecx, ecx
    pushfq
    or dword [rsp], 1 << 8
    popfq
    inc ecx
.behind:
    inc ecx
    int 0x30
user_flags:
    pushfq
    or dword [rsp], 0x44cd5             ; AC, NT, OF, DF, the arithmetic ones
    popfq
    syscall
    pushfq
    pop rax
    int 0x30
user_steps_over_popf:
    pushfq
    pushfq
    or dword [rsp], 1 << 8
    popfq
    popfq
.behind:
    int 0x30
user_steps_into_rep:
    mov ecx, 3
    mov rsi, buffer
    mov rdi, buffer2
    pushfq
    or dword [rsp], 1 << 8
    popfq
.at:
    rep movsb
    int 0x30
user_clears_ac:
    pushfq
    or dword [rsp], 1 << 18
    popfq
    syscall                             ; goes on with it
    pushfq
    and dword [rsp], ~(1 << 18)
    popfq
    mov rax, [TEST_BASE + 0x123]
user_is_near:
    mov rdi, NEAR_STUB
    mov rax, [rdi]
    int 0x30
user_reads_there:
    mov rdi, STUB + 0x1000
    mov rax, [rdi]
    int 0x30
user_counts_there:
    mov rdi, STUB
    mov ecx, 20000
.again:
    inc qword [rdi]
    dec ecx
    jnz .again
    int 0x30
user_reads_text:
    movzx eax, byte [user_cpuid_itself]
    mov [sum], rax
    int 0x30
    align 4096

section .data
align 8
own_gdt:
    dq 0
    dq 0x00af9a000000ffff               ; kernel code
    dq 0x00cf92000000ffff               ; kernel data
    dq 0, 0
    dq 0x00cff2000000ffff               ; user data
    dq 0x00affa000000ffff               ; user code
own_gdt_pointer:
    dw $ - own_gdt - 1
    dq own_gdt
align 8
own_data: dq 0x5555
expected: dq 0
expected_work: dq 0

section .bss
alignb 4096
stub_pdpt: resb 4096
stub_pd: resb 4096
stub_pt: resb 4096
near_pt: resb 4096
buffer: resb 16384
buffer2: resb 16384
save_area: resb 8192
sum: resq 1
count: resd 1
