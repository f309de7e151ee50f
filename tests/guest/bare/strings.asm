; String instructions: every size and direction, overlap, zero counts, REPE and REPNE, 16-bit address wrap-around, faults in mid-way and
; restart, INS and OUTS.
%include "long.inc"

%macro MAP 2                            ; page number in pt_test, entry
    mov rax, %2
    mov [pt_test + %1 * 8], rax
    invlpg [TEST_BASE + %1 * 4096]
%endmacro
%macro REGS 3                           ; RSI, RDI, RCX as they must be
    CHECK64 rsi, %1
    CHECK64 rdi, %2
    CHECK64 rcx, %3
%endmacro
%macro SETUP 3
    mov rsi, %1
    mov rdi, %2
    mov rcx, %3
%endmacro

main64:
    call fill
    call moves
    call stores_and_loads
    call compares
    call address_size
    call faults
    call ports
    call wrap16
    ret

fill:                                   ; source: 0, 1, 2 ... 255; target: 0xee
    mov rdi, source
    xor eax, eax
.next:
    stosb
    inc al
    jnz .next
    mov rdi, target
    mov al, 0xee
    mov ecx, 256
    rep stosb
    ret

moves:
    SETUP source, target, 7
    rep movsb
    REGS source + 7, target + 7, 0
    CHECK64 [target], 0xee06050403020100
    SETUP source + 1, target + 16, 3
    rep movsw
    REGS source + 7, target + 22, 0
    CHECK64 [target + 16], 0xeeee060504030201
    SETUP source + 3, target + 32, 5        ; misaligned
    rep movsd
    REGS source + 23, target + 52, 0
    CHECK64 [target + 44], 0x161514131211100f
    SETUP source, target + 64, 2
    rep movsq
    REGS source + 16, target + 80, 0
    CHECK64 [target + 72], 0x0f0e0d0c0b0a0908
    ; count zero: nothing happens, not even for a bad address
    SETUP 0x800000000000, TEST_BASE, 0
    rep movsb
    REGS 0x800000000000, TEST_BASE, 0
    rep stosq
    rep lodsq
    cmp eax, eax
    repe cmpsb
    jne .bad                            ; and the flags stay
    stc
    repne scasb
    jc .carry
.bad:
    call fail64
.carry:
    ; without REP the count does not matter
    SETUP source + 9, target, 77
    movsb
    REGS source + 10, target + 1, 77
    ; backwards
    std
    SETUP source + 9, target + 9, 4
    rep movsb
    cld
    REGS source + 5, target + 5, 0
    mov eax, [target + 6]
    CHECK64 rax, 0x09080706
    std
    SETUP source + 32, target + 96, 3
    rep movsq
    cld
    REGS source + 8, target + 72, 0
    CHECK64 [target + 80], 0x1716151413121110
    ; overlap: forwards by one smears, element by element
    call fill
    SETUP source, source + 1, 16
    rep movsb
    CHECK64 [source], 0
    CHECK64 [source + 8], 0
    call fill
    SETUP source, source + 3, 12            ; a period of three
    rep movsb
    CHECK64 [source + 6], 0x0100020100020100
    call fill
    SETUP source + 1, source, 16            ; forwards downwards is a plain move
    rep movsb
    CHECK64 [source], 0x0807060504030201
    call fill
    SETUP source, source + 4, 4             ; dwords onto the next
    rep movsd
    CHECK64 [source + 12], 0x0302010003020100
    call fill
    std
    SETUP source + 15, source + 16, 16      ; backwards upwards is a plain move
    rep movsb
    cld
    CHECK64 [source + 9], 0x0f0e0d0c0b0a0908
    call fill
    ret

stores_and_loads:
    mov rax, 0x1122334455667788
    SETUP source, target, 3
    rep stosb
    REGS source, target + 3, 0
    CHECK64 [target], 0xeeeeeeeeee888888
    SETUP source, target + 8, 1
    rep stosw
    rep stosd                               ; RCX is 0
    stosd
    stosq
    REGS source, target + 22, 0
    CHECK64 [target + 8], 0x7788556677887788
    CHECK64 [target + 14], 0x1122334455667788
    SETUP source + 16, target, 4
    xor eax, eax
    rep lodsb
    CHECK64 rax, 0x13
    REGS source + 20, target, 0
    mov rax, -1
    lodsw
    CHECK64 rax, 0xffffffffffff1514
    lodsd
    CHECK64 rax, 0x19181716
    lodsq
    CHECK64 rax, 0x21201f1e1d1c1b1a
    std
    lodsd
    cld
    CHECK64 rax, 0x25242322
    CHECK64 rsi, source + 30
    ; segment overrides: the source's only
    mov ecx, 0xc0000100
    mov eax, source
    xor edx, edx
    wrmsr
    SETUP 8, target, 1
    fs rep movsb
    mov al, [target]
    movzx eax, al
    CHECK64 rax, 8
    xor eax, eax
    mov fs, ax
    ret

compares:
    call fill
    SETUP source, target, 256
    mov byte [target], 0
    mov byte [target + 1], 1
    mov byte [target + 2], 3
    repe cmpsb
    pushfq
    pop rbx
    REGS source + 3, target + 3, 253
    and ebx, 0x8d5
    CHECK64 rbx, 0x95                       ; 2 - 3: CF, PF, AF, SF
    SETUP source, source, 16
    repe cmpsb
    jne .bad
    REGS source + 16, source + 16, 0
    SETUP source, target, 100
    repne cmpsb                             ; equal at once
    REGS source + 1, target + 1, 99
    SETUP source, source, 8
    repe cmpsq
    REGS source + 64, source + 64, 0
    mov dword [target + 0x40], 0x7fffffff
    mov dword [target + 0x60], 0x80000000
    SETUP target + 0x60, target + 0x40, 1
    repe cmpsd
    pushfq
    pop rbx
    and ebx, 0x8d5
    CHECK64 rbx, 0x810                      ; 0x80000000 - 0x7fffffff = 1: OF, AF; PF of 01 is clear
    mov al, 200
    SETUP source, source, 256
    repne scasb
    REGS source, source + 201, 55
    mov al, 0
    SETUP source, source, 5
    inc rdi
    repne scasb
    je .bad
    REGS source, source + 6, 0
    mov ax, 0xeeee
    SETUP 0, target + 128, 10
    repe scasw
    REGS 0, target + 148, 0
    jne .bad
    mov rax, 0x0706050403020100
    std
    SETUP 0, source + 64, 50
    repne scasq
    cld
    REGS 0, source - 8, 41
    mov eax, 5
    mov rdi, source
    mov byte [source], 7
    scasb                                   ; 5 - 7
    jae .bad
    mov byte [source], 0
    ret
.bad:
    call fail64

; 32-bit addresses in 64-bit mode: ESI, EDI, ECX, zero-extended when written; the upper half of RCX does not count
address_size:
    call fill
    mov rsi, 0xffffffff00000000
    mov rdi, rsi
    mov rcx, rsi
    mov rax, source
    or rsi, rax
    mov rax, target
    or rdi, rax
    or rcx, 5
    a32 rep movsb
    REGS source + 5, target + 5, 0
    mov rcx, 0xffffffff00000000
    mov rsi, 0xffffffff00000001
    mov rdi, 0xffffffff00000002
    a32 rep movsb                           ; zero: nothing moves
    mov eax, ecx
    CHECK64 rax, 0
    mov eax, esi
    CHECK64 rax, 1
    ; EDI wraps at 4 GiB
    mov rdi, 0xfffffffc                     ; nothing is mapped there: the fault shows the address
    mov eax, 0
    mov ecx, 2
    PF64 2, 0xfffffffc, a32 stosd
    CHECK64 rdi, 0xfffffffc
    ; LOOP and JRCXZ take the address size as well
    mov rcx, 0x100000000
    jecxz .zero
    call fail64
.zero:
    jrcxz .bad
    mov rcx, 0x100000001
    a32 loop .bad
    ret
.bad:
    call fail64

faults:
    ; source page missing after 24 bytes; everything up to it is done and the instruction restarts
    MAP 0, test_page + PTE_P + PTE_W
    MAP 1, 0
    mov rdi, TEST_BASE
    mov rax, 0x5a5a5a5a5a5a5a5a
    mov ecx, 512
    rep stosq
    CHECK64 rdi, TEST_BASE + 0x1000
    SETUP TEST_BASE + 0xfe8, target, 5
    mov rax, TEST_BASE + 0x1000
    PF64 0, TEST_BASE + 0x1000, rep movsq
    REGS TEST_BASE + 0x1000, target + 24, 2
    MAP 1, test_page2 + PTE_P + PTE_W
    mov qword [test_page2], 0x77
    rep movsq
    REGS TEST_BASE + 0x1010, target + 40, 0
    CHECK64 [target + 24], 0x77
    ; an element across the missing page: not done at all
    MAP 1, 0
    SETUP target, TEST_BASE + 0xff4, 4
    PF64 2, TEST_BASE + 0x1000, rep movsq
    REGS target + 8, TEST_BASE + 0xffc, 3
    mov eax, [TEST_BASE + 0xffc]
    CHECK64 rax, 0x5a5a5a5a
    ; backwards into a missing page below
    MAP 2, test_page2 + PTE_P + PTE_W
    std
    SETUP target + 40, TEST_BASE + 0x2008, 9
    EXPECT64_BEGIN .down
.down_site:
    rep movsq
    call fail64
.down:
    EXPECT64_END 14, 2, .down_site
    CHECK64 [seen64_cr2], TEST_BASE + 0x1ff8
    REGS target + 24, TEST_BASE + 0x1ff8, 7
    mov rax, [seen64_flags]
    and eax, 0x400
    CHECK64 rax, 0x400                      ; DF in the image
    ; read-only target
    MAP 1, test_page2 + PTE_P
    SETUP target, TEST_BASE + 0xff8, 2
    PF64 3, TEST_BASE + 0x1000, rep movsq
    REGS target + 8, TEST_BASE + 0x1000, 1
    SETUP target, TEST_BASE + 0xffe, 4
    mov eax, 0x42
    PF64 3, TEST_BASE + 0x1000, rep stosb
    REGS target, TEST_BASE + 0x1000, 2
    ; SCAS and CMPS stop with the flags of the last element compared
    MAP 1, 0
    mov rdi, TEST_BASE + 0xff0
    mov ecx, 16
    mov al, 0
    rep stosb
    mov byte [TEST_BASE + 0xfff], 1
    SETUP source, TEST_BASE + 0xff0, 100
    mov al, 9
    PF64 0, TEST_BASE + 0x1000, repne scasb
    REGS source, TEST_BASE + 0x1000, 84
    SETUP TEST_BASE + 0xffc, TEST_BASE + 0xff8, 9
    PF64 0, TEST_BASE + 0x1000, cmpsq       ; across the page
    REGS TEST_BASE + 0xffc, TEST_BASE + 0xff8, 9
    ; not canonical
    SETUP source, 0x7ffffffffff8, 4
    MAP 1, 0
    PF64 2, 0x7ffffffffff8, rep movsq
    SETUP 0x800000000000, target, 4
    FAULT64 13, 0, rep movsb
    REGS 0x800000000000, target, 4
    call fill
    ret

ports:
    ; OUTS to the diagnostic port: the string is walked
    mov dx, 0x80
    SETUP source, target, 16
    rep outsb
    REGS source + 16, target, 0
    SETUP source, target, 3
    rep outsw
    REGS source + 6, target, 0
    std
    SETUP source + 8, target, 3
    rep outsd
    cld
    REGS source - 4, target, 0
    SETUP source, target, 0
    rep outsb
    REGS source, target, 0
    outsb
    REGS source + 1, target, 0
    ; INS
    SETUP source, target, 4
    rep insb
    REGS source, target + 4, 0
    insd
    insw
    REGS source, target + 10, 0
    ; fw_cfg: the signature in one REP INSB
    mov dx, 0x510
    xor eax, eax
    out dx, ax
    inc dx
    in al, dx
    cmp al, "Q"
    jne .no_fw_cfg
    dec dx
    xor eax, eax
    out dx, ax
    inc dx
    SETUP source, target, 4
    rep insb
    REGS source, target + 4, 0
    mov eax, [target]
    CHECK64 rax, "QEMU"
    in al, dx                               ; past its end: zeroes
    movzx eax, al
    CHECK64 rax, 0
    ; backwards
    dec dx
    xor eax, eax
    out dx, ax
    inc dx
    std
    SETUP source, target + 11, 4
    rep insb
    cld
    REGS source, target + 7, 0
    mov eax, [target + 8]
    bswap eax
    CHECK64 rax, "QEMU"
    ; a fault in mid-way takes nothing from the port: the rest arrives after it
    dec dx
    xor eax, eax
    out dx, ax
    inc dx
    MAP 0, test_page + PTE_P + PTE_W
    MAP 1, 0
    SETUP source, TEST_BASE + 0xffe, 4
    PF64 2, TEST_BASE + 0x1000, rep insb
    REGS source, TEST_BASE + 0x1000, 2
    MAP 1, test_page2 + PTE_P + PTE_W
    mov dx, 0x511
    rep insb
    mov eax, [TEST_BASE + 0xffe]
    CHECK64 rax, "QEMU"
.no_fw_cfg:
    ; OUTS from a missing page
    MAP 1, 0
    mov dx, 0x80
    SETUP TEST_BASE + 0xffe, target, 4
    PF64 0, TEST_BASE + 0x1000, rep outsb
    REGS TEST_BASE + 0x1000, target, 2
    ret

; 16-bit code in compatibility mode: SI and DI wrap at 64 KiB, CX counts, upper halves stay
wrap16:
    mov esi, code16
    mov edi, 0x8000
    mov ecx, code16_end - code16
    rep movsb
    mov dword [gdt_test], 0x8000ffff
    mov dword [gdt_test + 4], 0x00009a00            ; code, base 0x8000
    mov dword [gdt_test + 8], 0x0000ffff
    mov dword [gdt_test + 12], 0x00009202           ; data, base 0x20000
    mov rdi, 0x20000
    mov ecx, 0x10000 / 8
    mov rax, 0xcccccccccccccccc
    rep stosq
    mov dword [0x20000 + 0xfffe - 2], 0x04030201
    mov word [0x20000], 0x0605
    mov ax, SEL_DATA                    ; flat, for the results
    mov fs, ax
    push qword SEL_TEST
    push qword 0
    mov rbx, rsp
    o64 retf
.back:
    mov ax, SEL_DATA
    mov ss, ax
    mov ds, ax
    mov es, ax
    mov rsp, rbx
    add rsp, 16
    ; MOVSB from 0xfffc: wraps to 0
    mov eax, [0x20000 + 0x100]
    CHECK64 rax, 0x04030201
    mov ax, [0x20000 + 0x104]
    movzx eax, ax
    CHECK64 rax, 0x0605
    mov eax, [results]
    CHECK64 rax, 0x77770002             ; SI
    mov eax, [results + 4]
    CHECK64 rax, 0x88880106             ; DI
    mov eax, [results + 8]
    CHECK64 rax, 0x99990000             ; CX
    ; STOSW at 0xfffe, then 0
    mov ax, [0x20000 + 0xfffe]
    movzx eax, ax
    CHECK64 rax, 0xabcd
    mov ax, [0x20000]
    movzx eax, ax
    CHECK64 rax, 0xabcd
    mov eax, [results + 12]
    CHECK64 rax, 0x88880002
    ; 32-bit addresses there: ESI, EDI, ECX whole
    mov eax, [0x20000 + 0x200]
    CHECK64 rax, 0x04030201
    ; a word at 0xffff: #GP(0)
    EXPECT64_BEGIN .limit
    mov rdi, 0xffff
    mov rcx, 1
    push qword SEL_TEST
    push qword code16.limit - code16
    o64 retf
.limit:
    EXPECT64_END 13, 0, code16.limit_site - code16
    CHECK64 rdi, 0xffff
    CHECK64 rcx, 1
    ret

bits 16
code16:
    mov ax, SEL_TEST2
    mov ds, ax
    mov es, ax
    mov esi, 0x7777fffc
    mov edi, 0x88880100
    mov ecx, 0x99990006
    rep movsb
    mov [dword fs:results], esi
    mov [dword fs:results + 4], edi
    mov [dword fs:results + 8], ecx
    mov edi, 0x8888fffe
    mov ecx, 0x99990002
    mov ax, 0xabcd
    rep stosw
    mov [dword fs:results + 12], edi
    mov esi, 0x100
    mov edi, 0x200
    mov ecx, 1
    a32 rep movsd
    jmp dword SEL_CODE64:wrap16.back
.limit:
    mov ax, SEL_TEST2
    mov es, ax
.limit_site:
    rep stosw
code16_end:
bits 64

section .data
align 16
results: dd 0, 0, 0, 0
section .bss
alignb 64
resb 64
source: resb 320
target: resb 320
section .text
