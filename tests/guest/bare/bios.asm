; A kernel that goes to real mode and asks a BIOS. There is none: every service returns, with CF set; the memory below the EBDA
; and the equipment are told. The selectors at the start are GRUB legacy's and QEMU's, of a GDT that is there.
%include "common.inc"

main:
    CHECK dword [entry_cs], 0x08
    CHECK dword [entry_ds], 0x10
    mov esi, low_code                   ; below 1 MiB, where real mode reaches it
    mov edi, 0x8000
    mov ecx, low_end - low_code
    rep movsb
    mov [saved_esp], esp
    lidt [real_idt]
    jmp SEL_CODE16:0x8000

bits 16
align 16
low_code:
%define LOW(label) (label - low_code + 0x8000)
    mov ax, SEL_DATA16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0:LOW(.real)
.real:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    xor ebp, ebp                        ; services that did not say "no"
%macro REFUSED 2                        ; vector, AX
    mov ax, %2
    clc
    int %1
    jc %%good
    inc bp
%%good:
%endmacro
    mov edx, 0x534d4150
    mov ecx, 20
    xor ebx, ebx
    mov di, 0x7800
    REFUSED 0x15, 0xe820
    REFUSED 0x15, 0xe801
    REFUSED 0x15, 0x8800
    REFUSED 0x10, 0x4f00
    REFUSED 0x13, 0x0200
    REFUSED 0x16, 0x0100
    REFUSED 0x1a, 0xb101
    REFUSED 0xff, 0
    mov [0x7900], bp
    int 0x12
    mov [0x7904], ax
    mov ax, 0x1234
    int 0x11
    mov [0x7908], ax
    ; an IRQ without a handler is acknowledged
    mov al, 0x11
    out 0x20, al
    mov al, 8
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x30
    out 0x43, al
    mov al, 1
    out 0x40, al
    mov al, 0
    out 0x40, al
    sti
.wait:                                  ; for OUT to rise
    mov al, 0xe2
    out 0x43, al
    in al, 0x40
    test al, 0x80
    jz .wait
.take:                                  ; for the request to be taken: nothing left in IRR
    mov al, 0x0a
    out 0x20, al
    in al, 0x20
    test al, 1
    jnz .take
    cli
    mov al, 0x0b                        ; ISR: the stub has ended it
    out 0x20, al
    in al, 0x20
    movzx ax, al
    mov [0x790c], ax
    mov al, 0xff
    out 0x21, al
    ; back
    lgdt [LOW(.gdt_pointer)]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword SEL_CODE32:back
.gdt_pointer:
    dw gdt_end - gdt - 1
    dd gdt
low_end:

bits 32
back:
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, [saved_esp]
    lidt [idt_pointer]
    movzx eax, word [0x7900]
    CHECK eax, 0
    movzx eax, word [0x7904]
    CHECK eax, 639
    movzx eax, word [0x7908]
    CHECK eax, 0x200
    movzx eax, word [0x790c]
    CHECK eax, 0
    ret

section .data
real_idt:
    dw 0x3ff
    dd 0
section .text
