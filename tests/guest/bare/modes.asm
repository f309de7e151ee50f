; Every mode in turn: protected 32 -> protected 16 -> real -> unreal -> protected -> PAE paging -> long -> compatibility -> long -> legacy
; paging -> protected. Address and operand sizes, register halves, segment registers as they survive.
%include "common.inc"

main:
    mov [home_esp], esp
    ; code for 16-bit modes must lie low: copy it to 0x8000
    mov esi, low_code
    mov edi, 0x8000
    mov ecx, low_code_end - low_code
    rep movsb
    mov dword [gdt + SEL_CODE16], 0x8000ffff        ; base 0x8000
    mov dword [gdt + SEL_CODE16 + 4], 0x00009a00
    jmp SEL_CODE16:0

back32:
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, [home_esp]
    lidt [idt_pointer]
    CHECK [0x600], 0x12340001           ; protected 16: 16-bit push and wrap-around
    CHECK [0x604], 0x00000008           ; 16-bit operand leaves the upper half
    CHECK [0x608], 0x0000beef           ; real mode: segment * 16
    CHECK [0x60c], 0x00001234           ; INT through the IVT
    CHECK [0x610], 0xfeedface           ; unreal mode reached above 1 MiB
    CHECK [0x614], 0x0000fff0           ; CALL pushes 16 bits; SP

    ; -- PAE paging, then long mode --
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov dword [pml4], pdpt + 1
    mov dword [pml4 + 4], 0
    mov dword [pdpt], pd + 1            ; legacy PAE: only P, PWT, PCD may be set
    mov dword [pd], 0x83
    mov dword [pd + 8], 0x200083
    mov eax, pdpt
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp .paged
.paged:
    mov eax, [0x600]
    CHECK eax, 0x12340001
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov dword [pdpt], pd + 3
    mov dword [pml4], pdpt + 3
    mov eax, pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0x500
    CHECK eax, 0x500                    ; LME and LMA; still compatibility mode
    mov eax, 0xffffffff
    inc eax
    CHECK eax, 0
    jmp SEL_CODE64:.long
bits 64
.long:
    mov rax, 0x1122334455667788
    mov eax, eax                        ; 32-bit writes zero the upper half
    mov rbx, 0x1122334455667788
    mov bx, 0                           ; 16-bit ones keep it
    mov [0x620], rax
    mov [0x628], rbx
    mov r8, 0xdeadbeef12345678
    mov [0x630], r8
    mov rcx, 0x123456789
    mov [0x638], ecx                    ; address-size prefix below reads it through ECX wrap
    mov rcx, 0xffffffff00000638
    mov edx, [ecx]
    mov [0x63c], edx
    push rax
    mov [0x640], rsp
    pop rax
    push qword SEL_CODE32
    push qword .compat
    retfq
bits 32
.compat:
    CHECK [0x620], 0x55667788
    CHECK [0x624], 0
    CHECK [0x628], 0x55660000
    CHECK [0x62c], 0x11223344
    CHECK [0x634], 0xdeadbeef
    CHECK [0x63c], 0x23456789
    inc eax                             ; 0x40: INC here, REX in 64-bit mode
    mov dword [0x650], 0
    db 0x67, 0xa1                       ; 16-bit address in compatibility mode
    dw 0x634
    CHECK eax, 0xdeadbeef
    ; the upper halves survive compatibility mode as hardware leaves them; R8 always
    jmp SEL_CODE64:.long2
bits 64
.long2:
    mov rax, 0xdeadbeef12345678
    cmp r8, rax
    je .kept
    mov dword [0x650], 1
.kept:
    push qword SEL_CODE32
    push qword .leave
    retfq
bits 32
.leave:
    CHECK [0x650], 0
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0x400
    CHECK eax, 0                        ; LMA went with PG
    rdmsr
    and eax, ~0x100
    wrmsr
    ; legacy two-level paging with 4 MiB pages
    mov eax, cr4
    and eax, ~0x20
    or eax, 0x10
    mov cr4, eax
    mov dword [pd], 0x83
    mov dword [pd + 4], 0x400083
    mov dword [pd + 8], 0x83            ; 8 MiB -> 0 again
    mov eax, pd
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp .legacy
.legacy:
    mov eax, [0x800600]
    CHECK eax, 0x12340001
    EXPECT_FAULT 14, 0, mov eax, [0xc00000]
    mov eax, cr2
    CHECK eax, 0xc00000
    ; 4 KiB page by page table, PSE off
    mov dword [pd + 12], pt + 3
    mov dword [pt], 0x3 + 0x0
    mov eax, cr3
    mov cr3, eax
    mov eax, [0xc00600]
    CHECK eax, 0x12340001
    mov eax, [pt]
    and eax, 0x20
    CHECK eax, 0x20
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    ret

bits 16
align 16
low_code:
%define LOW(label) (label - low_code)
    mov ax, SEL_DATA16
    mov ss, ax
    mov ds, ax
    mov esp, 0x00010600                 ; SS.B = 0: only SP counts
    push word 0x1234
    mov bx, sp
    sub bx, 0x5fd                       ; 0x5fe - 0x5fd = 1
    mov ax, [0x5fe]
    shl eax, 16
    mov ax, bx
    mov [0x600], eax
    mov eax, 0
    mov ax, 0xffff
    add ax, 9                           ; carries out of AX only
    mov [0x604], eax
    ; to real mode
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0x800:LOW(.real)
.real:
    xor ax, ax
    mov ss, ax
    mov sp, 0xfff0
    mov ax, 0x60
    mov ds, ax
    mov word [8], 0xbeef                ; 0x60 * 16 + 8
    mov word [10], 0
    xor ax, ax
    mov ds, ax
    mov es, ax
    lidt [cs:LOW(.ivt)]
    mov word [0x21 * 4], LOW(.handler)
    mov word [0x21 * 4 + 2], 0x800
    mov dword [0x60c], 0
    int 0x21
    mov [0x60c], bx
    call .near
    ; unreal: load a big limit in protected mode, come back
    o32 lgdt [cs:LOW(.gdt)]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, SEL_DATA
    mov ds, bx
    and al, 0xfe
    mov cr0, eax
    mov edi, high_word
    mov dword [edi], 0xfeedface
    mov eax, [edi]
    xor bx, bx
    mov ds, bx
    mov [0x610], eax
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword SEL_CODE32:back32
.handler:
    mov bx, 0x1234
    iret
.near:
    mov bp, sp
    mov dword [0x614], 0
    add bp, 2
    mov [0x614], bp
    ret
.ivt:
    dw 0x3ff
    dd 0
.gdt:
    dw gdt_end - gdt - 1
    dd gdt
low_code_end:
bits 32
section .data
align 8
home_esp: dd 0
high_word: dd 0
section .bss
alignb 4096
pml4: resb 4096
pdpt: resb 4096
pd: resb 4096
pt: resb 4096
section .text
