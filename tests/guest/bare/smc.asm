; Self-modifying code: the next instruction, a loop's own body, code written through another mapping, by string instructions, by a device
; port read and by x87 and vector stores; a page that is code, data, code; an instruction across two pages edited in the second; a code
; page remapped; loops and loads over the end of a page; x87 pointers in code that runs often; code at a kernel and a user address; code that 64-bit and 32-bit mode share.
%include "long.inc"

%macro MAP 2                            ; page number in pt_test, entry
    mov rax, %2
    mov [pt_test + %1 * 8], rax
    invlpg [TEST_BASE + %1 * 4096]
%endmacro
%define RW (PTE_P + PTE_W)

main64:
    ; (jumps and CPUID after a store to code are what the manual asks for; the CPU also sees stores without them, at the same
    ; linear address: SDM Vol. 3A 8.1.3 and 11.6)
    mov r15, TEST_BASE
    call next_instruction
    call own_loop
    call growing_loop
    call other_mapping
    call every_kind_of_store
    call code_data_code
    call crossing
    call crossing_hot
    call loop_over_pages
    call loads_over_pages
    call x87_pointers
    call remapped
    call modes
    call many_times
    call patched_call_site
    call user_code
    ret

next_instruction:
    mov ecx, 200
.again:
    mov [.patched + 1], ecx             ; the immediate of the very next instruction
.patched:
    mov eax, 0
    CHECK64 rax, rcx
    loop .again
    ; a NOP becomes INC, further on in the same straight line
    xor ebx, ebx
    mov word [.nops], 0xc3ff            ; inc ebx
    mov eax, 1
    mov edx, 2
.nops:
    nop
    nop
    CHECK64 rbx, 1
    mov word [.nops], 0x9090
    ; and what follows becomes a jump over a failure
    mov word [.trap], 0x05eb            ; jmp +5
.trap:
    nop
    nop
    call fail64
    mov word [.trap], 0x9090
    ret

; the loop counts by an immediate that it increments itself
own_loop:
    mov ecx, 300
    xor ebx, ebx
    mov dword [.body + 2], 0
.next:
    inc dword [.body + 2]
.body:
    add ebx, 0x7fffffff                 ; 81 c3 imm32
    loop .next
    CHECK64 rbx, 300 * 301 / 2
    ; the backward branch is patched away by the body on its 50th pass
    mov ecx, 1000
    xor ebx, ebx
.spin:
    inc ebx
    cmp ebx, 50
    je .patch
.rejoin:
    nop
.branch:
    db 0xe2, .spin - .branch - 2        ; LOOP
    CHECK64 rbx, 50
    CHECK64 rcx, 1000 - 49
    ret
.patch:
    mov word [.branch], 0x9090
    jmp .rejoin

; code is appended while it runs: INC EAX bytes, the RET moves on
growing_loop:
    MAP 0, test_page + RW
    mov rdi, r15
    mov ebp, 1
.grow:
    mov word [rdi], 0xc0ff              ; inc eax
    mov byte [rdi + 2], 0xc3
    add rdi, 2
    xor eax, eax
    call r15
    CHECK64 rax, rbp
    inc ebp
    cmp ebp, 600
    jb .grow
    ret

; written through one linear address, run at another
other_mapping:
    MAP 0, test_page + RW
    MAP 3, test_page + RW
    mov ecx, 100
.again:
    mov byte [r15], 0xb8                ; mov eax, imm32; ret
    mov [r15 + 1], ecx
    mov byte [r15 + 5], 0xc3
    mov rbx, r15
    add rbx, 0x3000
    call rbx                            ; page 3
    CHECK64 rax, rcx
    lea edx, [rcx + 1000]
    mov [test_page + 1], edx            ; the identity mapping
    call serialise
    call r15
    mov edx, eax
    lea eax, [rcx + 1000]
    CHECK64 rax, rdx
    call rbx
    CHECK64 rax, rdx
    mov rax, 0xffffffff80000000
    add rax, test_page
    lea edx, [rcx + 2000]
    mov [rax + 1], edx                  ; the upper half
    call serialise
    call test_page
    CHECK64 rax, rdx
    dec ecx
    jnz .again
    ret

serialise:
    push rax
    push rbx
    push rcx
    push rdx
    xor eax, eax
    cpuid
    pop rdx
    pop rcx
    pop rbx
    pop rax
    ret

; STORED instruction...: the function at r15 must return 0x11111111 before and 0x22222222 after
%macro STORED 1+
    mov dword [r15 + 1], 0x11111111
    call r15
    CHECK64 rax, 0x11111111
    mov eax, 0x22222222
    %1
    call r15
    CHECK64 rax, 0x22222222
%endmacro
every_kind_of_store:
    MAP 0, test_page + RW
    mov byte [r15], 0xb8
    mov byte [r15 + 5], 0xc3
    STORED {mov [r15 + 1], eax}
    STORED xchg [r15 + 1], eax
    STORED add dword [r15 + 1], 0x11111111
    STORED lock add dword [r15 + 1], 0x11111111
    STORED shl dword [r15 + 1], 1
    mov dword [value], 0x22222222
    mov dword [value + 4], 0xc3
    movups xmm0, [value]
    STORED {movd [r15 + 1], xmm0}
    STORED {movq [r15 + 1], xmm0}
    STORED {movups [r15 + 1], xmm0}
    STORED {movlps [r15 + 1], xmm0}
    STORED movnti [r15 + 1], eax
    fninit                              ; after RESET every register counts as full, every exception is open
    fild dword [value]
    STORED fist dword [r15 + 1]
    fninit
    movq mm0, [value]
    STORED {movq [r15 + 1], mm0}
    emms
    lea rdi, [r15 + 1]
    STORED stosd
    lea rdi, [r15 + 1]
    mov rsi, value
    mov ecx, 5
    STORED rep movsb
    std
    lea rdi, [r15 + 5]
    mov rsi, value + 4
    mov ecx, 5
    STORED rep movsb
    cld
    lea rdi, [r15 + 9]
    mov rbx, [value]
    STORED call .by_push
    mov ecx, 0x22222222
    STORED call .by_cmpxchg
    STORED call .by_xadd
    STORED call .by_bits
    ; a CALL's return address is a store as well: data on a code page must not upset it
    mov rbp, rsp
    lea rsp, [r15 + 0x100]
    call .leaf
    mov rsp, rbp
    call r15
    CHECK64 rax, 0x22222222
    ; from a port, one byte at a time
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
    call r15
    lea rdi, [r15 + 1]
    mov ecx, 4
    rep insb
    call r15
    CHECK64 rax, "QEMU"
.no_fw_cfg:
    ret
.leaf:
    ret
.by_push:
    mov rdx, rsp
    mov rsp, rdi
    push rbx
    mov rsp, rdx
    ret
.by_cmpxchg:
    mov eax, 0x11111111
    lock cmpxchg [r15 + 1], ecx
    ret
.by_xadd:
    mov eax, 0x11111111
    lock xadd [r15 + 1], eax
    ret
.by_bits:
    mov edx, 32
.bit:
    dec edx
    btr [r15 + 1], edx
    test edx, 3
    jnz .clear
    bts [r15 + 1], edx
    btc [r15 + 1], edx
.clear:
    mov eax, edx
    and eax, 3
    cmp eax, 1
    jne .more
    bts [r15 + 1], edx
.more:
    test edx, edx
    jnz .bit
    ret

code_data_code:
    MAP 0, test_page + RW
    mov ebp, 50
.again:
    mov dword [r15], 0x909090f8         ; clc; nops; then mov eax, 1; ret
    mov dword [r15 + 4], 0x000001b8
    mov dword [r15 + 8], 0xc300
    mov byte [r15 + 9], 0xc3
    call r15
    CHECK64 rax, 1
    ; data
    mov rdi, r15
    mov ecx, 512
    mov rax, 0x0101010101010101
    rep stosq
    mov rsi, r15
    xor ebx, ebx
    mov ecx, 512
.sum:
    lodsq
    add rbx, rax
    loop .sum
    mov rax, 0x0101010101010101 * 512
    CHECK64 rbx, rax
    ; code once more, another one
    mov dword [r15], 0x000002b8
    mov word [r15 + 4], 0xc300
    call r15
    CHECK64 rax, 2
    dec ebp
    jnz .again
    ret

; mov eax, imm32 whose opcode is the last byte of one page
crossing:
    MAP 0, test_page + RW
    MAP 1, test_page2 + RW
    mov byte [r15 + 0xfff], 0xb8
    mov byte [test_page2 + 4], 0xc3
    lea rbx, [r15 + 0xfff]
    mov ecx, 100
.again:
    mov [test_page2], ecx               ; only the second page changes
    call serialise
    call rbx
    CHECK64 rax, rcx
    lea edx, [rcx + 5]
    mov [r15 + 0x1000], edx
    call rbx
    CHECK64 rax, rdx
    loop .again
    ; the first page changes
    mov byte [r15 + 0xfff], 0xb9        ; mov ecx
    call rbx
    CHECK64 rcx, rdx
    mov byte [r15 + 0xfff], 0xb8
    ; the second page goes: #PF with the instruction's address as RIP, the page's as CR2
    MAP 1, 0
    EXPECT64_BEGIN .gone
    call rbx
.gone:
    EXPECT64_END 14, 0x10, TEST_BASE + 0xfff
    CHECK64 [seen64_cr2], TEST_BASE + 0x1000
    ; another page comes in its place
    MAP 1, other_page + RW
    mov dword [other_page], 0x5150
    mov byte [other_page + 4], 0xc3
    call rbx
    CHECK64 rax, 0x5150
    ret

; the same many times, while the second page goes back and forth by INVLPG and by CR3
crossing_hot:
    MAP 0, test_page + RW
    mov byte [r15 + 0xfff], 0xb8
    mov dword [test_page2], 0x111
    mov byte [test_page2 + 4], 0xc3
    mov dword [other_page], 0x222
    mov byte [other_page + 4], 0xc3
    lea rbx, [r15 + 0xfff]
    mov ebp, 200
.again:
    MAP 1, test_page2 + RW
    call rbx
    CHECK64 rax, 0x111
    call rbx
    CHECK64 rax, 0x111
    MAP 1, other_page + RW
    call rbx
    CHECK64 rax, 0x222
    mov rax, test_page2 + RW
    mov [pt_test + 8], rax
    mov rax, cr3
    mov cr3, rax
    call rbx
    CHECK64 rax, 0x111
    dec ebp
    jnz .again
    ret

; a loop with an instruction over the end of a page: add eax, 3; add edx, imm32; dec ecx; jnz; ret
loop_over_pages:
    MAP 0, test_page + RW
    MAP 1, test_page2 + RW
    mov dword [test_page + 0xffa], 0x8103c083
    mov word [test_page + 0xffe], 0x01c2
    mov dword [test_page2], 0xff000000
    mov dword [test_page2 + 4], 0xc3f375c9
    lea rbx, [r15 + 0xffa]
    mov ebp, 50
.again:
    xor eax, eax
    xor edx, edx
    mov ecx, 1000
    call rbx
    CHECK64 rax, 3000
    CHECK64 rdx, 1000
    ; a byte of the instruction in the second page, then one before it in the first
    mov byte [test_page2], 1
    mov byte [r15 + 0xffc], 5
    call serialise
    xor eax, eax
    xor edx, edx
    mov ecx, 1000
    call rbx
    CHECK64 rax, 5000
    CHECK64 rdx, 1000 * 0x101
    mov byte [test_page2], 0
    mov byte [r15 + 0xffc], 3
    call serialise
    dec ebp
    jnz .again
    ; the second page goes: what comes before the instruction still runs
    MAP 1, 0
    EXPECT64_BEGIN .gone
    call rbx
.gone:
    EXPECT64_END 14, 0x10, TEST_BASE + 0xffd
    CHECK64 [seen64_cr2], TEST_BASE + 0x1000
    ret

; loads over the end of a page, from frames that are no neighbours
loads_over_pages:
    MAP 0, test_page + RW
    MAP 1, other_page + RW
    mov dword [test_page + 0xffc], 0x44332211
    mov dword [other_page], 0x08776655
    mov rdx, 0x0877665544332211
    mov rdi, 1 << 56
    mov ecx, 200
.again:
    mov rax, [r15 + 0xffc]
    CHECK64 rax, rdx
    movzx eax, word [r15 + 0xfff]
    CHECK64 rax, 0x5544
    xor r10d, r10d
    or r10, [r15 + 0xffc]
    CHECK64 r10, rdx
    inc byte [other_page + 3]
    add rdx, rdi
    ; and a store, and both
    add [r15 + 0xffd], rdi
    sub [r15 + 0xffd], rdi
    dec ecx
    jnz .again
    MAP 1, 0
    EXPECT64_BEGIN .after
.load:
    mov rax, [r15 + 0xffc]
.after:
    EXPECT64_END 14, 0, .load
    CHECK64 [seen64_cr2], TEST_BASE + 0x1000
    ret

; FIP, and where CPUID says that they are of every instruction, FDP and FOP, in code that runs often
x87_pointers:
    xor ecx, ecx
    mov eax, 7
    cpuid
    mov r12d, ebx
    fninit
    mov ebp, 200
.again:
    lea rsi, [scratch_x87 + rbp]
    fld qword [rsi + 8]
.last:
    fstp qword [rsi]
    nop
    fnstenv [environment_x87]
    mov eax, [environment_x87 + 12]
    CHECK64 rax, .last
    bt r12d, 6                          ; FDP_EXCPTN_ONLY
    jc .next
    mov eax, [environment_x87 + 20]
    CHECK64 rax, rsi
    mov eax, [environment_x87 + 16]
    shr eax, 16
    CHECK64 rax, 0x51e                  ; DD /3
    ; one without memory: FDP stays
    fld1
    fstp st0
    fnstenv [environment_x87]
    mov eax, [environment_x87 + 20]
    CHECK64 rax, rsi
.next:
    dec ebp
    jnz .again
    fninit
    ret

; the same linear address, another physical page
remapped:
    mov dword [test_page], 0x000007b8
    mov word [test_page + 4], 0xc300
    mov dword [test_page2], 0x000008b8
    mov word [test_page2 + 4], 0xc300
    mov ebp, 100
.again:
    MAP 0, test_page + RW
    call r15
    CHECK64 rax, 7
    MAP 0, test_page2 + RW
    call r15
    CHECK64 rax, 8
    ; by CR3 instead of INVLPG
    mov rax, test_page + RW
    mov [pt_test], rax
    mov rax, cr3
    mov cr3, rax
    call r15
    CHECK64 rax, 7
    dec ebp
    jnz .again
    ; NX comes and goes
    mov rax, test_page + RW
    bts rax, 63
    mov [pt_test], rax
    invlpg [r15]
    EXPECT64_BEGIN .nx
    call r15
.nx:
    EXPECT64_END 14, 0x11, TEST_BASE
    MAP 0, test_page + RW
    call r15
    CHECK64 rax, 7
    ret

; the same bytes as 64-bit and as 32-bit code: 48 is REX.W or DEC EAX
modes:
    mov ebp, 20
.again:
    mov dword [shared], 0xc3c0ff48      ; inc rax; ret  /  dec eax; inc eax; ret
    mov rax, 0xffffffff
    call shared
    mov rbx, 0x100000000
    CHECK64 rax, rbx
    mov [saved], rsp
    push qword SEL_CODE32
    push qword .in32
    o64 retf
bits 32
.in32:
    mov eax, 5
    call shared
    mov ebx, eax
    jmp SEL_CODE64:.in64
bits 64
.in64:
    mov rsp, [saved]
    CHECK64 rbx, 5
    dec ebp
    jnz .again
    ret

; thousands of different functions at one address: old translations must go, whatever room they have
many_times:
    MAP 0, test_page + RW
    mov byte [r15 + 0x800], 0xb8
    mov byte [r15 + 0x805], 0xc3
    lea rbx, [r15 + 0x800]
    mov ecx, 20000
.again:
    mov [rbx + 1], ecx
    call rbx
    cmp eax, ecx
    jne .bad
    loop .again
    ret
.bad:
    call fail64

; the target of a direct call is switched to and fro, as kernels do with static calls
patched_call_site:
    mov ecx, 1000
    xor edx, edx
.again:
    mov eax, .one - .site - 5
    test ecx, 1
    jz .set
    mov eax, .two - .site - 5
.set:
    mov [.site + 1], eax
.site:
    call .one
    loop .again
    CHECK64 rdx, 500 + 500 * 1000
    ret
.one:
    inc edx
    ret
.two:
    add edx, 1000
    ret

; ring 3 writes its own code; the kernel writes it as well
user_code:
    MAP 0, test_page + RW + PTE_U
    mov dword [r15], 0x000009b8
    mov dword [r15 + 4], 0x30cd00       ; mov eax, 9; int 0x30
    mov byte [r15 + 4], 0
    mov word [r15 + 5], 0x30cd
    EXPECT64_BEGIN .first
    ENTER_USER64 TEST_BASE
.first:
    mov qword [resume64], 0
    CHECK64 [seen64_rax], 9
    mov byte [r15 + 1], 10
    EXPECT64_BEGIN .second
    ENTER_USER64 TEST_BASE
.second:
    mov qword [resume64], 0
    CHECK64 [seen64_rax], 10
    USER64 .user
    CHECK64 rbx, 1000 * 1001 / 2
    ret
.user:
    mov ecx, 1000
    xor ebx, ebx
.user_loop:
    mov [.user_body + 2], ecx
.user_body:
    add ebx, 0x7fffffff
    dec ecx
    jnz .user_loop
    int 0x30

align 16
shared: dd 0
    ret
section .data
align 16
value: dq 0, 0
saved: dq 0
section .bss
alignb 4096
other_page: resb 4096
scratch_x87: resb 512
environment_x87: resb 32
section .text
