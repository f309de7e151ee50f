; Interrupts in long mode: 8259 and PIT, STI shadow, HLT, TPR and priorities, self IPI, NMI and its blocking until IRET, local APIC
; timer (one-shot, periodic, TSC deadline), IOAPIC-routed PIT, x2APIC.
%include "long.inc"

%define APIC 0xfee00000
%define IOAPIC 0xfec00000

%macro HANDLER 2                        ; vector, label
    mov rax, %2
    mov rdi, idt + %1 * 16
    mov [rdi], ax
    shr rax, 16
    mov [rdi + 6], ax
%endmacro
%macro AWAIT 2                          ; counter, value: spins with HLT, interrupts on
%%more:
    cli
    cmp dword [%1], %2
    jae %%done
    sti
    hlt
    jmp %%more
%%done:
%endmacro

main64:
    ; the APIC's page and the IOAPIC's: identity, 2 MiB pages in the fourth GiB
    mov dword [pdpt + 3 * 8], pd_high + 7
    mov dword [pd_high + 502 * 8], 0xfec00000 + 0x93
    mov dword [pd_high + 503 * 8], 0xfee00000 + 0x93
    mov rax, cr3
    mov cr3, rax
    HANDLER 0x20, irq0
    HANDLER 0x27, spurious
    HANDLER 0x40, apic_timer
    HANDLER 0x50, low_vector
    HANDLER 0x61, high_vector
    HANDLER 0x70, ioapic_timer
    HANDLER 0xff, spurious
    HANDLER 2, nmi_handler

    ; -- 8259 and PIT --
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xfe                        ; only IRQ 0
    out 0x21, al
    mov al, 0xff
    out 0xa1, al
    ; the local APIC passes ExtINT (LINT0), software-enabled
    mov edi, APIC
    mov dword [rdi + 0xf0], 0x1ff
    mov dword [rdi + 0x350], 0x700
    mov dword [rdi + 0x80], 0
    mov al, 0x34                        ; rate generator, 1 kHz
    out 0x43, al
    mov al, 0xa9
    out 0x40, al
    mov al, 0x04
    out 0x40, al
    AWAIT irq0_count, 5
    mov al, 0xff
    out 0x21, al
    ; a one-shot: mode 0 fires once
    mov dword [irq0_count], 0
    mov al, 0x30
    out 0x43, al
    mov al, 0xff
    out 0x40, al
    mov al, 0x01
    out 0x40, al
    mov al, 0xfe
    out 0x21, al
    AWAIT irq0_count, 1
    mov al, 0xff
    out 0x21, al

    ; -- self IPI, STI shadow: pending, delivered only after the instruction behind STI --
    mov dword [rdi + 0x300], 0x44050    ; self, vector 0x50
    nop
    CHECK64 [low_count], 0
    xor ebx, ebx
    sti
    inc ebx                             ; in the shadow
    inc ebx                             ; the interrupt comes before this one
    cli
    mov eax, [low_count]
    CHECK64 rax, 1
    mov eax, [low_rbx]
    CHECK64 rax, 1
    ; STI; CLI opens no window
    mov dword [rdi + 0x300], 0x44050
    sti
    cli
    nop
    mov eax, [low_count]
    CHECK64 rax, 1
    sti
    nop
    cli
    mov eax, [low_count]
    CHECK64 rax, 2
    ; POPF opens it without a shadow
    mov dword [rdi + 0x300], 0x44050
    push qword 0x202
    xor ebx, ebx
    popfq
    inc ebx
    cli
    mov eax, [low_rbx]
    CHECK64 rax, 0

    ; -- priorities: the higher class first; TPR holds back --
    mov dword [order], 0
    mov dword [rdi + 0x300], 0x44050
    mov dword [rdi + 0x300], 0x44061
    sti
    nop
    nop
    cli
    mov eax, [order]
    CHECK64 rax, 0x6150
    mov dword [order], 0
    mov rax, 5
    mov cr8, rax                        ; class 5 and below wait
    mov eax, [rdi + 0x80]
    CHECK64 rax, 0x50
    mov dword [rdi + 0x300], 0x44050
    mov dword [rdi + 0x300], 0x44061
    sti
    nop
    nop
    mov eax, [order]
    CHECK64 rax, 0x61
    xor eax, eax
    mov cr8, rax                        ; now it may come
    nop
    cli
    mov eax, [order]
    CHECK64 rax, 0x6150
    ; IRR shows what waits
    mov dword [rdi + 0x300], 0x44061
    mov eax, [rdi + 0x230]
    CHECK64 rax, 2
    sti
    nop
    nop
    cli
    mov eax, [rdi + 0x230]
    CHECK64 rax, 0

    ; -- NMI: not masked by IF, not nested before IRET --
    mov dword [rdi + 0x300], 0x4400
    mov ecx, 1000
.wait_nmi:
    cmp dword [nmi_count], 2
    je .nmi_done
    loop .wait_nmi
.nmi_done:
    mov eax, [nmi_count]
    CHECK64 rax, 2
    mov eax, [nmi_nested]
    CHECK64 rax, 0

    ; -- APIC timer --
    mov dword [rdi + 0x3e0], 0xb        ; divide by 1
    mov dword [rdi + 0x320], 0x40       ; one-shot
    mov dword [rdi + 0x380], 100000
    AWAIT timer_count, 1
    mov eax, [rdi + 0x390]
    CHECK64 rax, 0
    mov dword [timer_count], 0
    mov dword [rdi + 0x320], 0x20040    ; periodic
    mov dword [rdi + 0x380], 200000
    AWAIT timer_count, 4
    mov dword [rdi + 0x320], 0x30040    ; masked
    mov dword [rdi + 0x380], 0
    mov eax, 1
    cpuid
    bt ecx, 24
    jnc .no_deadline
    sti                                 ; a period may have ended before the mask was written
    nop
    cli
    mov dword [timer_count], 0
    mov dword [rdi + 0x320], 0x40040    ; TSC deadline
    mfence
    rdtsc
    shl rdx, 32
    or rax, rdx
    add rax, 3000000
    mov r12, rax
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0x6e0
    wrmsr
    AWAIT timer_count, 1
    rdtsc
    shl rdx, 32
    or rax, rdx
    cmp rax, r12
    jae .not_early
    call fail64
.not_early:
    mov ecx, 0x6e0
    rdmsr
    CHECK64 rax, 0                      ; it disarms itself
    ; a deadline in the past fires at once
    mov dword [timer_count], 0
    xor edx, edx
    mov eax, 1
    wrmsr
    AWAIT timer_count, 1
.no_deadline:
    mov dword [rdi + 0x320], 0x10000

    ; -- PIT through the IOAPIC, pin 2 --
    mov esi, IOAPIC
    mov dword [rsi], 0x10 + 2 * 2
    mov dword [rsi + 0x10], 0x70        ; fixed, physical, edge, high
    mov dword [rsi], 0x11 + 2 * 2
    mov dword [rsi + 0x10], 0
    mov al, 0x34
    out 0x43, al
    mov al, 0xa9
    out 0x40, al
    mov al, 0x04
    out 0x40, al
    AWAIT ioapic_count, 3
    mov dword [rsi], 0x10 + 2 * 2
    mov dword [rsi + 0x10], 0x10070

    ; -- x2APIC --
    mov eax, 1
    cpuid
    bt ecx, 21
    jnc .no_x2apic
    mov ecx, 0x1b
    rdmsr
    or eax, 0xc00
    wrmsr
    mov byte [x2apic], 1
    mov ecx, 0x802
    rdmsr
    CHECK64 rax, 0
    mov dword [low_count], 0
    mov ecx, 0x83f                      ; SELF IPI
    mov eax, 0x50
    xor edx, edx
    wrmsr
    sti
    nop
    nop
    cli
    mov eax, [low_count]
    CHECK64 rax, 1
    mov ecx, 0x830                      ; ICR: fixed, self shorthand
    mov eax, 0x40050
    wrmsr
    sti
    nop
    nop
    cli
    mov eax, [low_count]
    CHECK64 rax, 2
    mov ecx, 0x80d                      ; LDR is read-only
    FAULT64 13, 0, wrmsr
    mov ecx, 0x1b                       ; x2APIC -> xAPIC is not allowed
    rdmsr
    and eax, ~0x400
    FAULT64 13, 0, wrmsr
.no_x2apic:
    ret

eoi:
    push rax
    push rcx
    push rdx
    cmp byte [x2apic], 0
    jne .msr
    mov eax, APIC
    mov dword [rax + 0xb0], 0
    jmp .out
.msr:
    xor eax, eax
    xor edx, edx
    mov ecx, 0x80b
    wrmsr
.out:
    pop rdx
    pop rcx
    pop rax
    ret
irq0:
    push rax
    inc dword [irq0_count]
    mov al, 0x20
    out 0x20, al
    pop rax
    iretq
spurious:
    iretq
apic_timer:
    inc dword [timer_count]
    call eoi
    iretq
ioapic_timer:
    inc dword [ioapic_count]
    call eoi
    iretq
low_vector:
    inc dword [low_count]
    mov [low_rbx], ebx
    shl dword [order], 8
    or dword [order], 0x50
    call eoi
    iretq
high_vector:
    shl dword [order], 8
    or dword [order], 0x61
    call eoi
    iretq
nmi_handler:
    push rax
    inc dword [nmi_count]
    cmp dword [nmi_count], 1
    jne .out
    ; a second NMI while this one is served waits for IRET
    mov eax, APIC
    mov dword [rax + 0x300], 0x4400
    nop
    nop
    mov eax, [nmi_count]
    dec eax
    mov [nmi_nested], eax
.out:
    pop rax
    iretq

section .data
align 8
irq0_count: dd 0
timer_count: dd 0
ioapic_count: dd 0
low_count: dq 0
low_rbx: dd 0
order: dd 0
nmi_count: dd 0
nmi_nested: dd 0
x2apic: db 0
section .bss
alignb 4096
pd_high: resb 4096
section .text
