; Several CPUs: INIT and SIPI, locked increments, fixed, NMI, broadcast, logical and lowest-priority IPIs, ping-pong, code changed by
; another CPU, TLB shoot-down, INIT and SIPI once more. The number of CPUs is fw_cfg's (key 5); without fw_cfg one.
%include "long.inc"

%define APIC 0xfee00000
%define MAX_CPUS 7                      ; one bit each in a flat logical destination
%define TRAMPOLINE 0x8000
%define AT(label) (label - trampoline)
%define ROUNDS 10000
%define SPLIT_ROUNDS 100                ; few: hosts that detect split locks make each of them slow
%define PATIENCE 60000000000            ; TSC ticks

%define V_COUNT 0x50
%define V_PING 0x51
%define V_PONG 0x52
%define V_PATCHED 0x53
%define V_READ 0x54
%define V_FLUSH 0x55
%define V_WORK 0x56
%define V_ONE 0x57

%macro HANDLER 2                        ; vector, label
    mov rax, %2
    mov rdi, idt + %1 * 16
    mov [rdi], ax
    shr rax, 16
    mov [rdi + 6], ax
%endmacro
%macro AWAIT 2                          ; 32-bit counter, value (at least, exact by a later CHECK)
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov rbx, PATIENCE
    add rbx, rax
%%more:
    mov eax, %2
    cmp [%1], eax
    jae %%done
    pause
    rdtsc
    shl rdx, 32
    or rax, rdx
    cmp rax, rbx
    jb %%more
    mov eax, [%1]
    mov [seen64_value], rax
    call fail64
%%done:
%endmacro
; IPI high, low: ICR written, delivery awaited
%macro IPI 2
    mov edi, APIC
    mov eax, %1
    mov [rdi + 0x310], eax
    mov dword [rdi + 0x300], %2
%%busy:
    test dword [rdi + 0x300], 0x1000
    jnz %%busy
%endmacro
; FOR_APS label..END_APS: EBP is the index
%macro FOR_APS 0
    %push aps
    mov ebp, 1
%$next:
    cmp ebp, [cpus]
    jae %$end
%endmacro
%macro END_APS 0
    inc ebp
    jmp %$next
%$end:
    %pop
%endmacro
%macro EACH_AP_HAS 2                    ; table of dwords, value
    FOR_APS
    mov eax, [%1 + rbp * 4]
    CHECK64 rax, %2
    END_APS
%endmacro

main64:
    mov dword [pdpt + 3 * 8], pd_high + 7
    mov dword [pd_high + 503 * 8], 0xfee00000 + 0x93
    mov rax, cr3
    mov cr3, rax
    HANDLER V_COUNT, on_count
    HANDLER V_PING, on_ping
    HANDLER V_PONG, on_pong
    HANDLER V_PATCHED, on_patched
    HANDLER V_READ, on_read
    HANDLER V_FLUSH, on_flush
    HANDLER V_WORK, on_work
    HANDLER V_ONE, on_one
    HANDLER 0xff, on_spurious
    HANDLER 2, on_nmi
    call count_cpus
    mov rsi, text_cpus
    call print64
    mov eax, [cpus]
    call print_hex64
    mov rsi, text_newline
    call print64
    xor ebp, ebp
    call join
    sti
    STEP wake
    STEP compete
    STEP interprocessor
    STEP ping_pong
    STEP cross_modify
    STEP shoot_down
    STEP restart
    cli
    ret

; fw_cfg: signature, then the count
count_cpus:
    mov dx, 0x510
    xor eax, eax
    out dx, ax
    inc dx
    mov ecx, 4
    xor ebx, ebx
.signature:
    in al, dx
    shl ebx, 8
    mov bl, al
    loop .signature
    mov dword [cpus], 1
    cmp ebx, "UMEQ"
    jne .done
    dec dx
    mov ax, 5
    out dx, ax
    inc dx
    in al, dx
    mov bl, al
    in al, dx
    mov bh, al
    movzx ebx, bx
    cmp ebx, MAX_CPUS
    ja .done
    mov [cpus], ebx
.done:
    ret

; EBP: our index. Local APIC on, one bit of the logical destination, GS: 0 the index.
join:
    mov eax, ebp
    imul eax, eax, 64
    add eax, per_cpu
    mov [rax], ebp
    xor edx, edx
    mov ecx, 0xc0000101
    wrmsr
    mov edi, APIC
    mov dword [rdi + 0xf0], 0x1ff
    mov dword [rdi + 0xe0], -1
    mov eax, 1
    mov ecx, ebp
    shl eax, cl
    shl eax, 24
    mov [rdi + 0xd0], eax
    mov dword [rdi + 0x80], 0
    mov eax, [rdi + 0x20]
    mov [apic_ids + rbp * 4], eax
    mov eax, 1
    cpuid                               ; the same id
    mov eax, [apic_ids + rbp * 4]
    xor eax, ebx
    shr eax, 24
    CHECK64 rax, 0
    mov ecx, 0x1b
    rdmsr
    and eax, 0x900                      ; enabled; the bootstrap CPU alone has BSP
    mov ebx, 0x800
    test ebp, ebp
    jnz .ap
    mov ebx, 0x900
.ap:
    CHECK64 rax, rbx
    ret

wake:
    mov esi, trampoline
    mov edi, TRAMPOLINE
    mov ecx, trampoline_end - trampoline
    rep movsb
    mov dword [started], 1
    mov dword [ready], 1
    IPI 0, 0xc4500                      ; INIT, all but self
    IPI 0, 0xc4600 | (TRAMPOLINE >> 12) ; SIPI
    AWAIT ready, [cpus]
    mov eax, [started]
    mov ebx, [cpus]
    CHECK64 rax, rbx
    ; a second SIPI to a running CPU is ignored
    IPI 0, 0xc4600 | (TRAMPOLINE >> 12)
    ; the ids differ
    xor r8d, r8d
    xor ebp, ebp
.id:
    mov ecx, [apic_ids + rbp * 4]
    shr ecx, 24
    bts r8, rcx
    jnc .new
    call fail64
.new:
    inc ebp
    cmp ebp, [cpus]
    jb .id
    ret

; The words that all CPUs work on, as offsets
%define SUM_WIDE 0
%define SPIN 16
%define SUM_LOCK 20
%define SUM_CMPXCHG 24
%define SUM_XADD 28
%define SUM_PLAIN 32
%define SUM_SPLIT 62

; everybody at once: LOCK INC, CMPXCHG, XADD, CMPXCHG16B, and a lock around plain increments; on a page of data, then beside code
compete:
    mov dword [block], block_of_data
    call .round
    mov dword [block], block_beside_code
.round:
    mov dword [worked], 0
    IPI 0, 0xc4000 | V_WORK
    call work
    lock inc dword [worked]
    AWAIT worked, [cpus]
    mov r9d, [block]
    mov ebx, [cpus]
    imul ebx, ebx, ROUNDS
    mov eax, [r9 + SUM_LOCK]
    CHECK64 rax, rbx
    mov eax, [r9 + SUM_CMPXCHG]
    CHECK64 rax, rbx
    mov eax, [r9 + SUM_XADD]
    CHECK64 rax, rbx
    mov eax, [r9 + SUM_PLAIN]
    CHECK64 rax, rbx
    mov rax, [r9 + SUM_WIDE]
    mov rcx, [r9 + SUM_WIDE + 8]
    CHECK64 rax, rbx
    CHECK64 rcx, rbx
    imul ebx, [cpus], SPLIT_ROUNDS
    mov eax, [r9 + SUM_SPLIT]
    CHECK64 rax, rbx
    ret

work:
    mov r9d, [block]
    mov ecx, SPLIT_ROUNDS
.split:
    lock inc dword [r9 + SUM_SPLIT]     ; across a cache line
    loop .split
    mov ecx, ROUNDS
.more:
    lock inc dword [r9 + SUM_LOCK]
    mov eax, [r9 + SUM_CMPXCHG]
.retry:
    lea edx, [rax + 1]
    lock cmpxchg [r9 + SUM_CMPXCHG], edx
    jne .retry
    mov eax, 1
    lock xadd [r9 + SUM_XADD], eax
.acquire:
    mov eax, 1
    xchg [r9 + SPIN], eax
    test eax, eax
    jz .held
    pause
    jmp .acquire
.held:
    inc dword [r9 + SUM_PLAIN]
    mov dword [r9 + SPIN], 0
    loop .more
    push rbx
    mov esi, ROUNDS
.wide:
    mov rax, [r9 + SUM_WIDE]
    mov rdx, [r9 + SUM_WIDE + 8]
.wide_retry:
    lea rbx, [rax + 1]
    lea rcx, [rdx + 1]
    lock cmpxchg16b [r9 + SUM_WIDE]
    jne .wide_retry
    dec esi
    jnz .wide
    pop rbx
    ret
align 64
block_beside_code: times 128 db 0

interprocessor:
    ; fixed, physical
    FOR_APS
    IPI [apic_ids + rbp * 4], 0x4000 | V_COUNT
    END_APS
    call await_counts
    EACH_AP_HAS counts, 1
    ; NMI
    FOR_APS
    IPI [apic_ids + rbp * 4], 0x4400
    END_APS
    mov ecx, [cpus]
    dec ecx
    AWAIT nmis, ecx
    ; all but self, all, self
    mov dword [count_total], 0
    IPI 0, 0xc4000 | V_COUNT
    call await_counts
    EACH_AP_HAS counts, 2
    mov eax, [counts]
    CHECK64 rax, 0
    mov dword [count_total], 0
    IPI 0, 0x84000 | V_COUNT
    AWAIT count_total, [cpus]
    EACH_AP_HAS counts, 3
    mov eax, [counts]
    CHECK64 rax, 1
    IPI 0, 0x44000 | V_COUNT
    nop
    mov eax, [counts]
    CHECK64 rax, 2
    ; broadcast by physical destination 0xff
    mov dword [count_total], 0
    IPI 0xff000000, 0x4000 | V_COUNT
    AWAIT count_total, [cpus]
    EACH_AP_HAS counts, 4
    ; logical: every other CPU, then all
    mov dword [count_total], 0
    IPI 0xfe000000, 0x4800 | V_COUNT
    call await_counts
    EACH_AP_HAS counts, 5
    mov eax, [counts]
    CHECK64 rax, 3
    FOR_APS
    mov dword [count_total], 0
    mov eax, 0x1000000
    mov ecx, ebp
    shl eax, cl
    IPI eax, 0x4800 | V_COUNT
    AWAIT count_total, 1
    mov eax, [counts + rbp * 4]
    CHECK64 rax, 6
    END_APS
    ; lowest priority: exactly one of them
    mov ebp, 50
.lowest:
    mov dword [ones], 0
    IPI 0xff000000, 0x4900 | V_ONE
    AWAIT ones, 1
    mov dword [count_total], 0
    IPI 0, 0x84000 | V_COUNT            ; behind it on every CPU: nobody else has it pending
    AWAIT count_total, [cpus]
    mov eax, [ones]
    CHECK64 rax, 1
    dec ebp
    jnz .lowest
    ret

await_counts:
    mov ecx, [cpus]
    dec ecx
    AWAIT count_total, ecx
    ret

ping_pong:
    mov dword [pongs], 0
    xor r12d, r12d
    FOR_APS
    mov r13d, 200
.again:
    IPI [apic_ids + rbp * 4], 0x4000 | V_PING
    inc r12d
    AWAIT pongs, r12d
    mov eax, [pongs]
    CHECK64 rax, r12
    dec r13d
    jnz .again
    END_APS
    ret

; a function is rewritten; after the IPI (serialised by CPUID) every CPU must run the new one
cross_modify:
    mov r12d, 100
.round:
    mov eax, r12d
    imul eax, eax, 0x01010101
    mov [patched_code + 1], eax
    mov dword [executed], 0
    IPI 0, 0x84000 | V_PATCHED
    AWAIT executed, [cpus]
    mov eax, r12d
    imul eax, eax, 0x01010101
    mov r13d, eax
    xor ebp, ebp
.check:
    mov eax, [results + rbp * 4]
    CHECK64 rax, r13
    inc ebp
    cmp ebp, [cpus]
    jb .check
    dec r12d
    jnz .round
    ret

; the mapping changes; after the IPI that flushes, nobody may see the old page
shoot_down:
    mov dword [test_page], 0x0a0a0a0a
    mov dword [test_page2], 0x0b0b0b0b
    mov r12d, 60
.round:
    mov eax, test_page + PTE_P + PTE_W
    mov r13d, 0x0a0a0a0a
    test r12d, 1
    jz .even
    mov eax, test_page2 + PTE_P + PTE_W
    mov r13d, 0x0b0b0b0b
.even:
    mov [pt_test], rax
    mov dword [executed], 0
    IPI 0, 0x84000 | V_FLUSH
    AWAIT executed, [cpus]
    mov dword [executed], 0
    IPI 0, 0x84000 | V_READ
    AWAIT executed, [cpus]
    xor ebp, ebp
.check:
    mov eax, [results + rbp * 4]
    CHECK64 rax, r13
    inc ebp
    cmp ebp, [cpus]
    jb .check
    dec r12d
    jnz .round
    ret

; INIT takes CPU 1 out of its loop: no interrupt reaches it until SIPI, and it starts from the vector again
restart:
    cmp dword [cpus], 1
    je .alone
    mov ebp, 1
    IPI [apic_ids + rbp * 4], 0x4500
    mov eax, [counts + 4]
    mov r12d, eax
    IPI [apic_ids + rbp * 4], 0x4000 | V_COUNT
    mov ecx, 100000
.idle:
    pause
    loop .idle
    mov eax, [counts + 4]
    CHECK64 rax, r12
    mov dword [started], 1              ; it is the next to take index 1
    mov dword [ready], 1
    IPI [apic_ids + rbp * 4], 0x4600 | (TRAMPOLINE >> 12)
    AWAIT ready, 2
    mov ebp, 1
    IPI [apic_ids + rbp * 4], 0x4000 | V_COUNT
    lea ecx, [r12 + 1]
    AWAIT counts + 4, ecx
    mov eax, [counts + 4]
    lea ecx, [r12 + 1]
    CHECK64 rax, rcx                    ; the one sent in between was lost
.alone:
    ret

; -- The other CPUs ------------------------------------------------------------------------------------------------------------------
ap64:
    mov ax, SEL_DATA
    mov ss, ax
    mov ds, ax
    mov es, ax
    mov ebp, 1
    lock xadd [started], ebp
    cmp ebp, MAX_CPUS
    jb .fits
    cli
    hlt
.fits:
    mov eax, ebp
    shl eax, 12
    lea rsp, [rax + ap_stacks + 4096]
    lidt [idt_pointer64]
    ; the state that INIT leaves
    mov eax, [TRAMPOLINE + AT(start_cr0)]
    and eax, 0x9fffffff                 ; CD and NW as they were
    CHECK64 rax, 0x10
    mov eax, [TRAMPOLINE + AT(start_cs)]
    CHECK64 rax, TRAMPOLINE >> 4
    mov eax, [TRAMPOLINE + AT(start_flags)]
    CHECK64 rax, 2
    call join
    lock inc dword [ready]
.idle:
    sti
    hlt
    jmp .idle

on_count:
    push rax
    mov eax, [gs:0]
    lock inc dword [counts + rax * 4]
    lock inc dword [count_total]
    jmp finish
on_one:
    push rax
    lock inc dword [ones]
    jmp finish
on_ping:
    push rax
    mov eax, APIC
    mov dword [rax + 0x310], 0
    push rcx
    mov ecx, [apic_ids]
    mov [rax + 0x310], ecx
    mov dword [rax + 0x300], 0x4000 | V_PONG
    pop rcx
    jmp finish
on_pong:
    push rax
    lock inc dword [pongs]
    jmp finish
on_patched:
    push rax
    push rbx
    push rcx
    push rdx
    xor eax, eax
    cpuid
    call patched_code
    mov ecx, [gs:0]
    mov [results + rcx * 4], eax
    pop rdx
    pop rcx
    pop rbx
    lock inc dword [executed]
    jmp finish
on_read:
    push rax
    push rcx
    mov eax, [TEST_BASE]
    mov ecx, [gs:0]
    mov [results + rcx * 4], eax
    pop rcx
    lock inc dword [executed]
    jmp finish
on_flush:
    push rax
    invlpg [TEST_BASE]
    lock inc dword [executed]
    jmp finish
on_work:
    push rax
    push rcx
    push rdx
    push rsi
    push r9
    call work
    pop r9
    pop rsi
    pop rdx
    pop rcx
    lock inc dword [worked]
finish:
    mov eax, APIC
    mov dword [rax + 0xb0], 0
    pop rax
    iretq
on_nmi:
    lock inc dword [nmis]
on_spurious:
    iretq

bits 16
trampoline:
    cli
    mov ax, cs
    mov ds, ax
    mov [AT(start_cs)], ax
    mov ax, 0x7000
    mov ss, ax
    mov sp, 0x1000
    pushfd
    pop dword [AT(start_flags)]
    mov eax, cr0
    mov [AT(start_cr0)], eax
    o32 lgdt [AT(start_gdt)]
    mov eax, 0x6a0
    mov cr4, eax
    mov eax, pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x901
    wrmsr
    mov eax, 0x80010033
    mov cr0, eax
    jmp dword SEL_CODE64:ap64
align 4
start_cr0: dd 0
start_cs: dd 0
start_flags: dd 0
start_gdt:
    dw gdt_end - gdt - 1
    dd gdt
trampoline_end:
bits 64
align 64
patched_code:
    mov eax, 0
    ret

section .data
text_cpus: db "cpus ", 0
cpus: dd 1
started: dd 0
ready: dd 0
worked: dd 0
count_total: dd 0
nmis: dd 0
ones: dd 0
pongs: dd 0
executed: dd 0
block: dd 0
align 64
apic_ids: times MAX_CPUS dd 0
counts: times MAX_CPUS dd 0
results: times MAX_CPUS dd 0
section .bss
alignb 4096
pd_high: resb 4096
block_of_data: resb 4096
ap_stacks: resb 4096 * MAX_CPUS
per_cpu: resb 64 * MAX_CPUS
section .text
