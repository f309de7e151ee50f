; 16550: an interrupt handler that answers THRE by writing the next byte, without reading IIR (PC16550D, table "interrupt set and
; reset": THRE is reset by reading IIR *or by writing THR*). The write lowers INTR, the emptied holding register raises it again: a
; new edge at the 8259 for every byte.
%include "long.inc"
bits 64
%macro OUTB 2
    mov al, %2
    out %1, al
%endmacro
%macro COMW 2
    mov dx, 0x3f8 + %1
    mov al, %2
    out dx, al
%endmacro
irq4:
    push rax
    inc dword [count]
    mov al, 0x20
    out 0x20, al
    pop rax
    iretq
main64:
    mov rax, irq4
    mov [idt + 0x24 * 16], ax
    shr rax, 16
    mov [idt + 0x24 * 16 + 6], ax
    OUTB 0x20, 0x11
    OUTB 0x21, 0x20
    OUTB 0x21, 4
    OUTB 0x21, 1
    OUTB 0x21, 0xff
    COMW 3, 3
    COMW 4, 8
    COMW 2, 1
    COMW 1, 0
    OUTB 0x21, 0xef
    sti
    COMW 1, 2                           ; enabling with an empty transmitter: interrupt 1
    mov ebp, 1
    call wait_for_interrupts
.byte:
    COMW 0, '.'                         ; interrupts 2, 3, 4
    inc ebp
    call wait_for_interrupts
    cmp ebp, 4
    jne .byte
    call wait_a_bit                     ; and no more
    cli
    OUTB 0x21, 0xff
    COMW 1, 0
    mov eax, [count]
    CHECK64 rax, 4
    ret
wait_for_interrupts:                    ; EBP of them; a byte takes the time that it takes
    mov edi, 20000
.longer:
    cmp [count], ebp
    je .all
    call wait_a_bit
    dec edi
    jnz .longer
    mov eax, [count]
    CHECK64 rax, rbp
.all:
    ret
wait_a_bit:
    mov ecx, 2000
.more:
    in al, 0x61
    loop .more
    ret
section .data
count: dd 0
section .text
