; Exceptions of 32-bit protected mode without paging: vectors, error codes, restart addresses.
%include "common.inc"

main:
    ; -- divide, overflow, bounds, invalid --
    xor ecx, ecx
    mov edx, 5
    mov eax, 7
    EXPECT_FAULT 0, NONE, div ecx
    CHECK edx, 5                        ; a fault leaves the operands
    mov eax, 0x80000000
    mov edx, -1
    mov ecx, -1
    EXPECT_FAULT 0, NONE, idiv ecx
    mov ax, 0x8000
    mov cl, 1
    EXPECT_FAULT 0, NONE, div cl
    EXPECT_FAULT 0, NONE, aam 0
    EXPECT_TRAP 3, int3
    EXPECT_TRAP 0x55, int 0x55
    mov al, 0x7f
    add al, 1
    EXPECT_TRAP 4, into
    mov eax, 11
    EXPECT_FAULT 5, NONE, bound eax, [bounds]
    mov eax, 10
    bound eax, [bounds]
    EXPECT_FAULT 6, NONE, ud2
    EXPECT_FAULT 6, NONE, db 0xf0, 0x90           ; lock nop
    EXPECT_FAULT 6, NONE, db 0xf0, 0x01, 0xc0     ; lock add eax, eax
    EXPECT_FAULT 6, NONE, db 0x8e, 0xc8           ; mov cs, ax
    EXPECT_FAULT 6, NONE, db 0x0f, 0x01, 0xf8     ; swapgs
    EXPECT_FAULT 13, 0, db 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90

    ; -- segment loads --
    mov ax, SEL_NOT_PRESENT
    EXPECT_FAULT 11, SEL_NOT_PRESENT, mov ds, ax
    EXPECT_FAULT 12, SEL_NOT_PRESENT, mov ss, ax
    mov ax, SEL_BEYOND
    EXPECT_FAULT 13, SEL_BEYOND, mov es, ax
    mov ax, SEL_CODE32
    EXPECT_FAULT 13, SEL_CODE32, mov ss, ax
    mov ds, ax                                     ; readable code may be read
    mov ax, SEL_DATA
    mov ds, ax
    xor ax, ax
    EXPECT_FAULT 13, 0, mov ss, ax
    mov ax, SEL_USER_DATA
    EXPECT_FAULT 13, SEL_USER_DATA & ~3, mov ss, ax
    mov ax, SEL_TSS
    EXPECT_FAULT 13, SEL_TSS, mov ds, ax
    xor ax, ax
    lldt ax
    mov ax, 4                                      ; LDT selector, no LDT
    EXPECT_FAULT 13, 4, mov ds, ax
    xor ax, ax
    mov fs, ax
    EXPECT_FAULT 13, 0, mov eax, [fs:0]
    mov ax, SEL_TEST
    mov dword [gdt_test], 0x00000fff               ; base 0x0, limit 0xfff, bytes, read-only data
    mov dword [gdt_test + 4], 0x00409000
    mov es, ax
    mov eax, [es:0xffc]
    EXPECT_FAULT 13, 0, mov eax, [es:0xffd]
    mov bx, SEL_TEST
    mov es, bx                                     ; (a fault's handler resets the segments)
    EXPECT_FAULT 13, 0, mov [es:0], eax
    mov ax, SEL_TEST
    ; expand-down: valid from limit + 1 to 0xffffffff
    mov dword [gdt_test + 4], 0x00409600
    mov es, ax
    EXPECT_FAULT 13, 0, mov eax, [es:0xfff]
    mov ax, SEL_TEST
    mov es, ax
    mov eax, [es:0x1000]
    ; a stack segment's limit gives #SS
    mov dword [gdt_test], 0x000001ff               ; 2 MiB: the stack stays inside
    mov dword [gdt_test + 4], 0x00c09200
    mov ax, SEL_TEST
    EXPECT_BEGIN .after_ss
    mov ss, ax
.ss_site:
    mov eax, [ss:0x200000]
    FAIL_HERE
.after_ss:
    EXPECT_END 12, 0, .ss_site
    ; the accessed bit is set by a load
    mov dword [gdt_test + 4], 0x00409200
    mov ax, SEL_TEST
    mov es, ax
    CHECK [gdt_test + 4], 0x00409300
    mov ax, SEL_DATA
    mov es, ax

    ; -- far transfers --
    EXPECT_FAULT 13, 0, jmp 0:0
    EXPECT_FAULT 13, SEL_DATA, jmp SEL_DATA:0
    EXPECT_FAULT 13, SEL_BEYOND, call SEL_BEYOND:0
    EXPECT_FAULT 13, SEL_USER_CODE32 & ~3, jmp (SEL_USER_CODE32 & ~3):0
    mov dword [gdt_test], 0x0000ffff
    mov dword [gdt_test + 4], 0x00cf1a00           ; code, not present
    EXPECT_FAULT 11, SEL_TEST, jmp SEL_TEST:0
    ; a conforming segment keeps CPL
    mov dword [gdt_test + 4], 0x00cf9e00
    jmp SEL_TEST:.conforming
.conforming:
    mov ax, cs
    and eax, 0xffff
    CHECK eax, SEL_TEST
    jmp SEL_CODE32:.back
.back:
    ; -- gates --
    mov byte [idt + 0x41 * 8 + 5], 0x0e            ; not present
    EXPECT_FAULT 11, 0x41 * 8 + 2, int 0x41
    mov byte [idt + 0x42 * 8 + 5], 0x82            ; an LDT is no gate
    EXPECT_FAULT 13, 0x42 * 8 + 2, int 0x42
    lidt [short_idt]
    EXPECT_FAULT 13, 0x80 * 8 + 2, int 0x80
    lidt [idt_pointer]

    ; -- ring 3 --
    RING3_FAULT 13, 0, cli
    RING3_FAULT 13, 0, sti
    RING3_FAULT 13, 0, hlt
    RING3_FAULT 13, 0, clts
    RING3_FAULT 13, 0, {mov eax, cr0}
    RING3_FAULT 13, 0, {mov cr3, eax}
    RING3_FAULT 13, 0, {mov dr7, eax}
    RING3_FAULT 13, 0, lgdt [gdt_pointer]
    RING3_FAULT 13, 0, lldt ax
    RING3_FAULT 13, 0, ltr ax
    RING3_FAULT 13, 0, lmsw ax
    RING3_FAULT 13, 0, rdmsr
    RING3_FAULT 13, 0, wrmsr
    RING3_FAULT 13, 0, invd
    RING3_FAULT 13, 0, wbinvd
    RING3_FAULT 13, 0, invlpg [0]
    RING3_FAULT 13, 0, in al, 0x80
    RING3_FAULT 13, 0, out 0x80, al
    RING3_FAULT 13, 0x31 * 8 + 2, int 0x31
    RING3_FAULT 6, NONE, ud2
    RING3 .popf
    CHECK [seen_eax], 0x046                        ; IF and IOPL stay; no fault
    ; the I/O permission bitmap: port 0x80 open, 0x81 closed
    mov word [tss + 102], 104
    mov dword [tss + 104 + 0x10], 0xfffffffe
    mov word [gdt_tss], 0x67 + 0x20
    mov byte [gdt_tss + 5], 0x89
    mov ax, SEL_TSS
    ltr ax
    RING3 .open_port
    RING3_FAULT 13, 0, {in al, 0x81}
    RING3_FAULT 13, 0, {in ax, 0x80}
    jmp .skip
.open_port:
    in al, 0x80
    int 0x30
.popf:
    push dword 0x3246
    popfd
    pushfd
    pop eax
    int 0x30
.skip:

    ret
section .data
bounds: dd 1, 10
short_idt:
    dw 0x80 * 8 - 1
    dd idt
section .text
