; Asleep with interrupts off, and an NMI on its way: from a timer by way of the IOAPIC, and of the 8259 and LINT0 (the two
; kinds of NMI watchdog). The machine is not dead.
%include "long.inc"
bits 64
%macro OUTB 2
    mov al, %2
    out %1, al
%endmacro
%macro IOAPIC 2                         ; register, value
    mov dword [rdi], %1
    mov dword [rdi + 0x10], %2
%endmacro
%define LINT0 0xfee00350
%define SVR 0xfee000f0

main64:
    mov dword [pdpt + 3 * 8], pd_high + 7
    mov dword [pd_high + 502 * 8], 0xfec00000 + 0x93
    mov dword [pd_high + 503 * 8], 0xfee00000 + 0x93
    mov rax, cr3
    mov cr3, rax
    mov rax, on_nmi
    mov [idt + 2 * 16], ax
    shr rax, 16
    mov [idt + 2 * 16 + 6], ax
    cli
    ; IOAPIC pin 2: NMI, edge, to APIC 0
    mov edi, 0xfec00000
    IOAPIC 0x15, 0
    IOAPIC 0x14, 0x400
    OUTB 0x43, 0x34                     ; 100 Hz
    OUTB 0x40, 0x9c
    OUTB 0x40, 0x2e
    hlt
    mov eax, [count]
    test eax, eax
    jnz .woken
    call fail64
.woken:
    mov edi, 0xfec00000
    IOAPIC 0x14, 0x10000
    ; the 8259's INTR as an NMI at LINT0, from one shot: on a busy host it may come before HLT has begun
    mov dword [count], 0
    mov rax, .asleep
    mov [restart_until], rax
.arm:
    OUTB 0x43, 0x30                     ; OUT low
    OUTB 0x20, 0x11
    OUTB 0x21, 0x20
    OUTB 0x21, 4
    OUTB 0x21, 1
    OUTB 0x21, 0xfe
    mov edi, SVR                        ; a disabled APIC's pins stay masked
    mov dword [rdi], 0x1ff
    mov edi, LINT0
    mov dword [rdi], 0x400
    OUTB 0x40, 0
    OUTB 0x40, 0x10                     ; 3.4 ms
    inc dword [arms]
    cmp dword [arms], 3
.early:
    jb .early                           ; a pulse that is over before anyone looks at the pin is an edge, too
.asleep:
    hlt
    mov qword [restart_until], 0
    mov edi, LINT0
    mov dword [rdi], 0x10700
    OUTB 0x21, 0xff
    mov eax, [count]
    CHECK64 rax, 1
    ret

; Counted when it ends an HLT; before that, the wait begins again.
on_nmi:
    push rax
    mov rax, [restart_until]
    test rax, rax
    jz .counts
    cmp [rsp + 8], rax
    ja .counts
    mov qword [rsp + 8], main64.arm
    pop rax
    iretq
.counts:
    inc dword [count]
    pop rax
    iretq

section .data
count: dd 0
arms: dd 0
restart_until: dq 0                   ; an NMI at or before this address: too early
section .bss
alignb 4096
pd_high: resb 4096
section .text
