; Exceptions of 64-bit mode: vectors, error codes, restart addresses, what a fault leaves untouched, IST, RF, double faults.
%include "long.inc"

%macro CR_SET 2                         ; register, bit
    mov rax, %1
    bts rax, %2
    mov %1, rax
%endmacro
%macro CR_CLEAR 2
    mov rax, %1
    btr rax, %2
    mov %1, rax
%endmacro
%macro UD 1+
    FAULT64 6, NONE64, %1
%endmacro

main64:
    call divide_and_traps
    call undefined
    call lock_prefix
    call selectors
    call transfers
    call control_values
    call gates
    call stacks
    call privileged
    call alignment
    call x87_and_sse
    call single_step
    call restart_flag
    call double_fault
    ret

divide_and_traps:
    xor ecx, ecx
    mov edx, 5
    mov eax, 7
    FAULT64 0, NONE64, div rcx
    CHECK64 rdx, 5
    CHECK64 rax, 7
    mov rax, 0x8000000000000000
    mov rdx, -1
    mov rcx, -1
    FAULT64 0, NONE64, idiv rcx
    mov edx, 2                          ; quotient 2^65 / 2
    xor eax, eax
    mov ecx, 2
    FAULT64 0, NONE64, div rcx
    mov ax, 0x100
    mov cl, 1
    FAULT64 0, NONE64, div cl
    xor ecx, ecx
    USER_FAULT64 0, NONE64, div ecx
    TRAP64 3, int3
    TRAP64 0x55, int 0x55
    TRAP64 1, db 0xf1                   ; INT1
    ; in ring 3, and what the frame says
    EXPECT64_BEGIN .user_int3
    ENTER_USER64 .user_int3_site
.user_int3_site:
    int3
.user_int3:
    EXPECT64_END 3, NONE64, .user_int3_site + 1
    CHECK64 [seen64_cs], SEL_USER_CODE64
    CHECK64 [seen64_ss], SEL_USER_DATA
    CHECK64 [seen64_user_rsp], user_stack_top
    CHECK64 [seen64_rsp], kernel_stack_top
    ret

undefined:
    UD ud2
    UD db 0x0f, 0xb9, 0xc0              ; UD1
    UD db 0x0f, 0xff, 0xc0              ; UD0
    ; what 64-bit mode took away
    UD db 0x06                          ; PUSH ES
    UD db 0x07
    UD db 0x0e
    UD db 0x16
    UD db 0x17
    UD db 0x1e
    UD db 0x1f
    UD db 0x27                          ; DAA
    UD db 0x2f
    UD db 0x37
    UD db 0x3f
    UD db 0x60                          ; PUSHA
    UD db 0x61
    UD db 0x82, 0xc0, 0x01              ; alias of group 1
    UD db 0x9a, 0, 0, 0, 0, 8, 0        ; CALL far
    UD db 0xce                          ; INTO
    UD db 0xd4, 0x0a                    ; AAM
    UD db 0xd5, 0x0a                    ; AAD
    UD db 0xd6                          ; SALC
    UD db 0xea, 0, 0, 0, 0, 8, 0        ; JMP far
    UD db 0x8e, 0xc8                    ; MOV CS, AX
    UD db 0x8e, 0xf0                    ; no such segment register
    UD db 0x8c, 0xf8
    UD db 0x0f, 0x20, 0xc8              ; CR1
    UD db 0x44, 0x0f, 0x20, 0xc8        ; CR9
    UD db 0x0f, 0x20, 0xe8              ; CR5
    UD db 0x0f, 0xaa                    ; RSM
    UD db 0x8d, 0xc0                    ; LEA from a register
    UD db 0xfe, 0xd0                    ; group 4 /2
    UD db 0xff, 0xf8                    ; group 5 /7
    UD db 0xff, 0xd8                    ; far CALL through a register
    UD db 0x0f, 0xba, 0xc0, 0           ; group 8 /0
    UD db 0xc6, 0xc8, 0                 ; group 11 /1
    UD db 0x8f, 0xc8                    ; group 1A /1
    UD db 0x0f, 0x01, 0xd0              ; XGETBV without OSXSAVE
    UD db 0xc5, 0xf8, 0x77              ; VZEROUPPER without OSXSAVE
    UD db 0xf3, 0x48, 0x0f, 0xae, 0xc0  ; RDFSBASE without FSGSBASE
    UD db 0xf3, 0x0f, 0xae, 0xc0
    USER_FAULT64 6, NONE64, db 0x0f, 0x20, 0xc8    ; before the privilege check
    USER_FAULT64 6, NONE64, ud2
    ; MOV DR4 is DR6 unless CR4.DE
    xor eax, eax
    mov dr6, rax
    db 0x0f, 0x21, 0xe0                 ; mov rax, dr4
    CHECK64 rax, 0xffff0ff0
    CR_SET cr4, 3
    UD db 0x0f, 0x21, 0xe0
    UD db 0x0f, 0x23, 0xe8              ; mov dr5, rax
    CR_CLEAR cr4, 3
    ; length: fifteen bytes may be, sixteen not
    times 14 db 0x66
    nop
    FAULT64 13, 0, db 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90
    ret

lock_prefix:
    xor eax, eax
    xor edx, edx
    xor ebx, ebx
    xor ecx, ecx
    mov qword [scratch], 0
    mov qword [scratch + 8], 0
    lock inc dword [scratch]
    lock bts dword [scratch], 5
    lock neg qword [scratch]
    lock xadd [scratch], rax
    lock cmpxchg16b [scratch]
    xchg [scratch], rax
    UD db 0xf0, 0x90                    ; NOP
    UD db 0xf0, 0x01, 0xc0              ; ADD register
    UD db 0xf0, 0x89, 0x03              ; MOV
    UD db 0xf0, 0x39, 0x03              ; CMP
    UD db 0xf0, 0x85, 0x03              ; TEST
    UD db 0xf0, 0x03, 0x03              ; ADD from memory
    UD db 0xf0, 0x0f, 0xa3, 0x03        ; BT
    UD db 0xf0, 0x8d, 0x03              ; LEA
    UD db 0xf0, 0x50                    ; PUSH
    UD db 0xf0, 0xc3                    ; RET
    UD db 0xf0, 0x83, 0x3b, 0           ; CMP imm
    UD db 0xf0, 0xf7, 0x23              ; MUL
    UD db 0xf0, 0x0f, 0xba, 0x23, 0     ; BT imm
    UD db 0xf0, 0xa4                    ; MOVS
    UD db 0xf0, 0x0f, 0xc7, 0xc8        ; CMPXCHG8B register
    UD db 0x0f, 0xc7, 0xc8
    FAULT64 13, 0, cmpxchg16b [scratch + 8]         ; alignment
    FAULT64 13, 0, lock cmpxchg16b [scratch + 1]
    ret

selectors:
    mov ax, SEL_NOT_PRESENT
    FAULT64 11, SEL_NOT_PRESENT, mov ds, ax
    FAULT64 11, SEL_NOT_PRESENT, mov gs, ax
    FAULT64 12, SEL_NOT_PRESENT, mov ss, ax
    mov ax, SEL_BEYOND
    FAULT64 13, SEL_BEYOND, mov es, ax
    mov ax, SEL_BEYOND | 3
    FAULT64 13, SEL_BEYOND, mov fs, ax              ; RPL is not part of an error code
    mov ax, SEL_CODE64
    FAULT64 13, SEL_CODE64, mov ss, ax
    mov ds, ax                                      ; readable code
    mov ax, SEL_TSS
    FAULT64 13, SEL_TSS, mov ds, ax
    mov ax, SEL_USER_DATA
    FAULT64 13, SEL_USER_DATA & ~3, mov ss, ax
    xor eax, eax
    lldt ax
    mov ax, 0xc
    FAULT64 13, 0xc, mov ds, ax                     ; in an LDT that is not there
    ; null: SS may be it at CPL 0 with RPL 0, not with RPL 3
    xor eax, eax
    mov ss, ax
    push rax
    pop rax
    mov ax, 3
    FAULT64 13, 0, mov ss, ax
    mov ax, SEL_DATA
    mov ss, ax
    xor eax, eax
    USER_FAULT64 13, 0, mov ss, ax
    ; DS null or short of limit does not matter
    xor eax, eax
    mov ds, ax
    mov rax, [scratch]
    mov dword [gdt_test], 0x00000fff
    mov dword [gdt_test + 4], 0x00409000            ; read-only, limit 0xfff
    mov ax, SEL_TEST
    mov ds, ax
    mov qword [scratch], 3
    mov rax, [scratch]
    CHECK64 rax, 3
    mov ax, SEL_DATA
    mov ds, ax
    ; LTR, LLDT
    mov ax, SEL_TSS
    FAULT64 13, SEL_TSS, ltr ax                     ; busy
    xor eax, eax
    FAULT64 13, 0, ltr ax
    mov ax, SEL_DATA
    FAULT64 13, SEL_DATA, ltr ax
    FAULT64 13, SEL_DATA, lldt ax
    mov dword [gdt_test + 8], 0x00000067
    mov dword [gdt_test + 12], 0x00000900           ; available TSS, not present
    mov dword [gdt_test + 16], 0
    mov dword [gdt_test + 20], 0
    mov ax, SEL_TEST2
    FAULT64 11, SEL_TEST2, ltr ax
    mov dword [gdt_test + 12], 0x00000200           ; LDT, not present
    FAULT64 11, SEL_TEST2, lldt ax
    ret

transfers:
    ; far jumps and returns through descriptors that are no code for us
    mov dword [far_target], .nowhere
    mov word [far_target + 4], 0
    FAULT64 13, 0, jmp far dword [far_target]
    mov word [far_target + 4], SEL_DATA
    FAULT64 13, SEL_DATA, jmp far dword [far_target]
    FAULT64 13, SEL_DATA, call far dword [far_target]
    mov word [far_target + 4], SEL_BEYOND
    FAULT64 13, SEL_BEYOND, call far dword [far_target]
    mov word [far_target + 4], SEL_USER_CODE64 & ~3
    FAULT64 13, SEL_USER_CODE64 & ~3, jmp far dword [far_target]
    mov word [far_target + 4], SEL_TSS              ; no task switches here
    FAULT64 13, SEL_TSS, jmp far dword [far_target]
    mov dword [gdt_test], 0x0000ffff
    mov dword [gdt_test + 4], 0x00ef9a00            ; L and D both
    mov word [far_target + 4], SEL_TEST
    FAULT64 13, SEL_TEST, jmp far dword [far_target]
    mov dword [gdt_test + 4], 0x00af1a00            ; not present
    FAULT64 11, SEL_TEST, jmp far dword [far_target]
    ; a far jump that works, 64-bit operand
    mov rax, .jumped
    mov [far_target], rax
    mov word [far_target + 8], SEL_CODE64
    push rbx
    xor eax, eax
    cpuid
    cmp ebx, 'Genu'
    pop rbx
    je .intel                           ; AMD has no 64-bit offset here (APM vol. 3 JMP far)
    mov word [far_target + 4], SEL_CODE64
.intel:
    jmp far qword [far_target]
    call fail64
.jumped:
    ; RETF and IRETQ
    EXPECT64_BEGIN .retf
    push qword SEL_DATA
    push qword .nowhere
.retf_site:
    o64 retf
.retf:
    EXPECT64_END 13, SEL_DATA, .retf_site
    EXPECT64_BEGIN .retf_null
    push qword 0
    push qword .nowhere
.retf_null_site:
    o64 retf
.retf_null:
    EXPECT64_END 13, 0, .retf_null_site
    EXPECT64_BEGIN .retf_canonical
    push qword SEL_CODE64
    mov rax, 0x800000000000
    push rax
.retf_canonical_site:
    o64 retf
.retf_canonical:
    EXPECT64_END 13, 0, .retf_canonical_site
%macro IRET_FAULT 5                     ; vector, error, cs, ss, flags
    EXPECT64_BEGIN %%after
    push qword %4
    push qword user_stack_top
    push qword %5
    push qword %3
    push qword .nowhere
%%site:
    iretq
    call fail64
%%after:
    EXPECT64_END %1, %2, %%site
%endmacro
    IRET_FAULT 13, 0, SEL_USER_CODE64, 0, 2
    IRET_FAULT 13, 0, SEL_USER_CODE64, 3, 2             ; a null SS, not at CPL 3
    IRET_FAULT 13, SEL_DATA, SEL_USER_CODE64, SEL_DATA, 2
    IRET_FAULT 13, SEL_USER_CODE64 & ~3, SEL_USER_CODE64, SEL_USER_CODE64, 2
    IRET_FAULT 13, SEL_USER_CODE64 & ~3, SEL_USER_CODE64 & ~3, SEL_DATA, 2
    IRET_FAULT 13, SEL_USER_DATA & ~3, SEL_USER_DATA, SEL_USER_DATA, 2
    IRET_FAULT 13, 0, 0, SEL_USER_DATA, 2
    EXPECT64_BEGIN .iret_nt
    push qword SEL_DATA
    push rsp
    push qword 2
    push qword SEL_CODE64
    push qword .nowhere
    push qword 0x4002
    popfq
.iret_nt_site:
    iretq                               ; NT: a task return, which IA-32e mode has not
.iret_nt:
    EXPECT64_END 13, 0, .iret_nt_site
    ; IRETQ to our own ring, SS null
    mov rbp, rsp
    push qword 0
    push rbp
    push qword 2
    push qword SEL_CODE64
    push qword .null_ss
    iretq
.null_ss:
    mov eax, ss
    CHECK64 rax, 0
    mov ax, SEL_DATA
    mov ss, ax
    mov rcx, rsp
    CHECK64 rcx, rbp
    ; a near jump and RET to a non-canonical address fault with RIP at the instruction
    mov rbx, 0x800000000000
    FAULT64 13, 0, call rbx
    EXPECT64_BEGIN .ret
    push rbx
    mov rbp, rsp
.ret_site:
    ret
.ret:
    EXPECT64_END 13, 0, .ret_site
    CHECK64 [seen64_user_rsp], rbp
.nowhere:
    ret

control_values:
    mov rax, cr0
    mov rbx, rax
    btr rax, 31
    FAULT64 13, 0, mov cr0, rax                     ; PG off in 64-bit mode
    mov rax, rbx
    btr rax, 0
    FAULT64 13, 0, mov cr0, rax                     ; PG without PE
    mov rax, rbx
    bts rax, 29
    btr rax, 30
    FAULT64 13, 0, mov cr0, rax                     ; NW without CD
    mov rax, rbx
    bts rax, 32
    FAULT64 13, 0, mov cr0, rax
    mov rax, cr4
    btr rax, 5
    FAULT64 13, 0, mov cr4, rax                     ; PAE off in IA-32e mode
    mov rax, cr4
    bts rax, 63
    FAULT64 13, 0, mov cr4, rax
    mov rax, cr3
    bts rax, 60
    FAULT64 13, 0, mov cr3, rax
    mov eax, 16
    FAULT64 13, 0, mov cr8, rax
    mov rax, 1 << 32
    FAULT64 13, 0, mov dr7, rax
    FAULT64 13, 0, mov dr6, rax
    mov ecx, 0xc0000080                             ; EFER
    rdmsr
    mov ebx, eax
    btr eax, 8
    FAULT64 13, 0, wrmsr                            ; LME while paging
    mov eax, ebx
    bts eax, 1
    FAULT64 13, 0, wrmsr                            ; reserved
    mov ecx, 0xc0000082                             ; LSTAR must be canonical
    xor eax, eax
    mov edx, 0x8000
    FAULT64 13, 0, wrmsr
    mov ecx, 0xc0000100
    FAULT64 13, 0, wrmsr
    mov ecx, 0x176
    FAULT64 13, 0, wrmsr
    mov ecx, 0x3fffffff                             ; no such register
    FAULT64 13, 0, rdmsr
    FAULT64 13, 0, wrmsr
    ; LGDT of a non-canonical base
    mov rax, 0x800000000000
    mov [scratch + 2], rax
    FAULT64 13, 0, lgdt [scratch]
    FAULT64 13, 0, lidt [scratch]
    ret

gates:
    mov byte [idt + 0x41 * 16 + 5], 0x0e            ; not present
    FAULT64 11, 0x41 * 8 + 2, int 0x41
    mov byte [idt + 0x42 * 16 + 5], 0x82            ; no gate
    FAULT64 13, 0x42 * 8 + 2, int 0x42
    mov byte [idt + 0x42 * 16 + 5], 0x85            ; a task gate
    FAULT64 13, 0x42 * 8 + 2, int 0x42
    mov byte [idt + 0x42 * 16 + 5], 0x86            ; a 16-bit gate
    FAULT64 13, 0x42 * 8 + 2, int 0x42
    mov word [idt + 0x43 * 16 + 2], SEL_CODE32      ; a gate must lead to 64-bit code
    FAULT64 13, SEL_CODE32, int 0x43
    mov word [idt + 0x43 * 16 + 2], 0
    FAULT64 13, 0, int 0x43
    mov word [idt + 0x43 * 16 + 2], SEL_DATA
    FAULT64 13, SEL_DATA, int 0x43
    mov word [idt + 0x43 * 16 + 2], SEL_BEYOND
    FAULT64 13, SEL_BEYOND, int 0x43
    mov word [idt + 0x43 * 16 + 2], SEL_USER_CODE64 & ~3
    FAULT64 13, SEL_USER_CODE64 & ~3, int 0x43
    lidt [short_idt]
    FAULT64 13, 0x80 * 8 + 2, int 0x80
    lidt [idt_pointer64]
    USER_FAULT64 13, 0x31 * 8 + 2, int 0x31
    ; EXT: of an exception's delivery 1, of INT n's and INT3's 0
    mov byte [idt + 6 * 16 + 5], 0x0e
    FAULT64 11, 6 * 8 + 3, ud2
    mov byte [idt + 6 * 16 + 5], 0x8e
    mov byte [idt + 3 * 16 + 5], 0x0e
    FAULT64 11, 3 * 8 + 2, int3
    mov byte [idt + 3 * 16 + 5], 0x8e
    USER_FAULT64 13, 3 * 8 + 2, int3                ; DPL counts for INT3 ...
    mov byte [idt + 3 * 16 + 5], 0xee
    mov word [idt + 6 * 16 + 2], SEL_CODE32
    FAULT64 13, SEL_CODE32 + 1, ud2
    mov word [idt + 6 * 16 + 2], SEL_CODE64
    EXPECT64_BEGIN .int1                            ; ... and not for INT1
    ENTER_USER64 .int1_site
.int1_site:
    db 0xf1
.int1:
    EXPECT64_END 1, NONE64, .int1_site + 1
    ; an interrupt gate clears IF, a trap gate leaves it
    mov byte [idt + 0x44 * 16 + 5], 0x8f
    mov rax, flags_seen
    mov [idt + 0x44 * 16], ax
    shr rax, 16
    mov [idt + 0x44 * 16 + 6], ax
    push qword 0x4402                               ; NT and DF
    popfq
    int 0x44
    pushfq
    pop rax
    push qword 2
    popfq
    cld
    CHECK64 rax, 0x4402
    CHECK64 [handler_flags], 0x402                  ; NT is clear in the handler, DF is kept
    ret
flags_seen:
    pushfq
    pop qword [handler_flags]
    iretq

stacks:
    ; the stack is aligned to 16 before the frame is pushed, and SS:RSP is pushed within a ring too
    mov rbp, rsp
    mov rsp, stack_top - 248
    EXPECT64_BEGIN .aligned
    int 0x55
.aligned:
    mov qword [resume64], 0
    CHECK64 [seen64_user_rsp], stack_top - 248
    CHECK64 [seen64_rsp], stack_top - 256
    CHECK64 [seen64_ss], SEL_DATA
    mov rsp, rbp
    ; IST 1, from ring 0
    mov byte [idt + 0x45 * 16 + 4], 1
    TRAP64 0x45, int 0x45
    CHECK64 [seen64_rsp], ist_stack_top
    mov qword [tss + 36], ist_stack_top - 40        ; aligned down as well
    TRAP64 0x45, int 0x45
    CHECK64 [seen64_rsp], ist_stack_top - 48
    mov qword [tss + 36], ist_stack_top
    ; IST 1 from ring 3
    mov byte [idt + 6 * 16 + 4], 1
    USER_FAULT64 6, NONE64, ud2
    CHECK64 [seen64_rsp], ist_stack_top
    mov byte [idt + 6 * 16 + 4], 0
    ; a handler from ring 3 has SS null with its own RPL
    mov rax, ss_seen
    mov [idt + 0x46 * 16], ax
    shr rax, 16
    mov [idt + 0x46 * 16 + 6], ax
    mov byte [idt + 0x46 * 16 + 5], 0xee
    USER64 .user_46
    CHECK64 [handler_ss], 0
    ; a TSS too short for IST 1
    mov word [gdt_tss], 42
    and byte [gdt_tss + 5], 0xfd
    mov ax, SEL_TSS
    ltr ax
    FAULT64 10, SEL_TSS, int 0x45
    mov word [gdt_tss], 0x67
    and byte [gdt_tss + 5], 0xfd
    ltr ax
    ; RSP0 not canonical: #SS(0), taken on its IST
    mov byte [idt + 12 * 16 + 4], 1
    mov rax, 0x900000000000
    mov [tss + 4], rax
    USER_FAULT64 12, 0, int 0x30
    mov byte [idt + 6 * 16 + 4], 0
    USER_FAULT64 12, 1, ud2                         ; EXT
    mov qword [tss + 4], kernel_stack_top
    ; RSP0 not mapped: #PF, a supervisor write
    mov byte [idt + 14 * 16 + 4], 1
    mov rax, TEST_BASE + 0x1000
    mov [tss + 4], rax
    USER_PF64 2, TEST_BASE + 0xff8, int 0x30
    mov qword [tss + 4], kernel_stack_top
    mov byte [idt + 14 * 16 + 4], 0
    mov byte [idt + 12 * 16 + 4], 0
    ret
.user_46:
    int 0x46
    int 0x30
ss_seen:
    mov eax, ss
    mov [handler_ss], rax
    iretq

privileged:
    USER_FAULT64 13, 0, cli
    USER_FAULT64 13, 0, sti
    USER_FAULT64 13, 0, hlt
    USER_FAULT64 13, 0, clts
    USER_FAULT64 13, 0, {mov rax, cr0}
    USER_FAULT64 13, 0, {mov rax, cr2}
    USER_FAULT64 13, 0, {mov cr3, rax}
    USER_FAULT64 13, 0, {mov cr4, rax}
    USER_FAULT64 13, 0, {mov rax, cr8}
    USER_FAULT64 13, 0, {mov rax, dr0}
    USER_FAULT64 13, 0, {mov dr7, rax}
    USER_FAULT64 13, 0, lgdt [gdt_pointer64]
    USER_FAULT64 13, 0, lidt [idt_pointer64]
    USER_FAULT64 13, 0, lldt ax
    USER_FAULT64 13, 0, ltr ax
    USER_FAULT64 13, 0, lmsw ax
    USER_FAULT64 13, 0, rdmsr
    USER_FAULT64 13, 0, wrmsr
    USER_FAULT64 13, 0, invd
    USER_FAULT64 13, 0, wbinvd
    USER_FAULT64 13, 0, invlpg [0]
    USER_FAULT64 13, 0, swapgs
    USER_FAULT64 13, 0, o64 sysret
    USER_FAULT64 13, 0, sysexit
    USER_FAULT64 13, 0, in al, 0x80
    USER_FAULT64 13, 0, out 0x80, al
    USER_FAULT64 13, 0, insb
    USER_FAULT64 13, 0, outsb
    USER_FAULT64 13, 0, rdpmc
    CR_SET cr4, 2                                   ; TSD
    USER_FAULT64 13, 0, rdtsc
    rdtsc
    CR_CLEAR cr4, 2
    USER64 .free
    ; canonical faults of ring 3
    mov rbx, 0x800000000000
    mov rbp, rbx
    USER_FAULT64 13, 0, {mov eax, [rbx]}
    USER_FAULT64 12, 0, {mov eax, [rbp]}
    USER_FAULT64 13, 0, {jmp rbx}
    ret
.free:
    rdtsc
    cpuid
    int 0x30

alignment:
    CR_SET cr0, 18                                  ; AM
    mov rbx, scratch + 1
    push qword 0x40002                              ; AC means nothing at CPL 0
    popfq
    mov eax, [rbx]
    push qword 2
    popfq
%macro AC_FAULT 1+
    EXPECT64_BEGIN %%after
    push qword SEL_USER_DATA
    push qword user_stack_top
    push qword 0x40002
    push qword SEL_USER_CODE64
    push qword %%site
    iretq
%%site:
    %1
    int 0x30
%%after:
    EXPECT64_END 17, 0, %%site
%endmacro
    AC_FAULT {mov eax, [rbx]}
    AC_FAULT {mov [rbx], ax}
    AC_FAULT {mov rax, [rbx + 3]}
    AC_FAULT {lock inc qword [rbx + 3]}
    AC_FAULT {add [rbx], eax}
    mov rsi, rbx
    mov rdi, scratch + 16
    AC_FAULT movsd
    AC_FAULT fld qword [rbx]
    USER64 .aligned_enough
    CR_CLEAR cr0, 18
    USER64 .not_asked
    ret
.aligned_enough:                                    ; bytes, aligned words, and AC off
    mov rbx, scratch
    push qword 0x40002
    popfq
    mov al, [rbx + 1]
    mov ax, [rbx + 2]
    mov eax, [rbx + 4]
    mov rax, [rbx + 8]
    push qword 2
    popfq
    mov eax, [rbx + 1]
    int 0x30
.not_asked:
    push qword 0x40002
    popfq
    mov eax, [scratch + 1]
    int 0x30

x87_and_sse:
    fninit
    ; #NM
    CR_SET cr0, 3                                   ; TS
    FAULT64 7, NONE64, fld1
    FAULT64 7, NONE64, fnstcw [scratch]
    FAULT64 7, NONE64, {movaps xmm0, xmm1}
    FAULT64 7, NONE64, fxsave [fx_area]
    FAULT64 7, NONE64, wait                         ; TS and MP
    USER_FAULT64 7, NONE64, {pxor xmm0, xmm0}
    CR_CLEAR cr0, 1
    wait                                            ; MP clear
    FAULT64 7, NONE64, fld1
    CR_SET cr0, 1
    clts
    CR_SET cr0, 2                                   ; EM
    FAULT64 7, NONE64, fld1
    UD movaps xmm0, xmm1
    UD db 0x0f, 0x77                                ; EMMS
    wait
    CR_CLEAR cr0, 2
    CR_CLEAR cr4, 9                                 ; OSFXSR
    UD movaps xmm0, xmm1
    UD addsd xmm0, xmm1
    CR_SET cr4, 9
    ; #MF at the next waiting instruction
    fninit
    mov word [scratch], 0x37b                       ; ZM off
    fldcw [scratch]
    fld1
    fldz
    fdivp st1, st0
    fnstsw ax
    and eax, 0x8084
    CHECK64 rax, 0x8084                             ; B, ES, ZE
    FAULT64 16, NONE64, wait
    FAULT64 16, NONE64, fld1
    USER_FAULT64 16, NONE64, wait
    fnclex
    wait
    fninit
    ; #XM
    mov dword [scratch], 0x1d80                     ; ZM off
    ldmxcsr [scratch]
    mov dword [scratch], 0x3f800000
    movss xmm0, [scratch]
    xorps xmm1, xmm1
    FAULT64 19, NONE64, {divss xmm0, xmm1}
    movd eax, xmm0
    CHECK64 rax, 0x3f800000                         ; the destination is as it was
    stmxcsr [scratch]
    mov eax, [scratch]
    CHECK64 rax, 0x1d84
    CR_CLEAR cr4, 10                                ; OSXMMEXCPT
    UD divss xmm0, xmm1
    CR_SET cr4, 10
    mov dword [scratch], 0x10000
    FAULT64 13, 0, ldmxcsr [scratch]
    mov dword [scratch], 0x1f80
    ldmxcsr [scratch]
    FAULT64 13, 0, {movaps xmm0, [scratch + 8]}
    FAULT64 13, 0, {movaps [scratch + 1], xmm0}
    FAULT64 13, 0, {paddb xmm0, [scratch + 4]}
    movups xmm0, [scratch + 1]
    FAULT64 13, 0, fxsave [fx_area + 8]
    ret

single_step:
    xor eax, eax
    mov dr6, rax
    ; ring 3: one instruction, then #DB behind it
    EXPECT64_BEGIN .stepped
    push qword SEL_USER_DATA
    push qword user_stack_top
    push qword 0x102
    push qword SEL_USER_CODE64
    push qword .user
    iretq
.user:
    nop
.user_next:
    int 0x30
.stepped:
    EXPECT64_END 1, NONE64, .user_next
    CHECK64 [seen64_cs], SEL_USER_CODE64
    mov rax, [seen64_flags]
    and eax, 0x10100
    CHECK64 rax, 0x100                              ; TF in the image; a trap: RF is not
    mov rax, dr6
    CHECK64 rax, 0xffff4ff0
    ; INT n from a stepped program: TF is cleared on the way, no #DB in the handler
    xor eax, eax
    mov dr6, rax
    EXPECT64_BEGIN .through_int
    push qword SEL_USER_DATA
    push qword user_stack_top
    push qword 0x102
    push qword SEL_USER_CODE64
    push qword .user_int
    iretq
.user_int:
    int 0x30
.user_int_next:
.through_int:
    EXPECT64_END 0x30, NONE64, .user_int_next
    mov rax, dr6
    and eax, 0x4000
    CHECK64 rax, 0
    ; a fault comes instead of the step
    EXPECT64_BEGIN .fault_first
    push qword SEL_USER_DATA
    push qword user_stack_top
    push qword 0x102
    push qword SEL_USER_CODE64
    push qword .user_ud
    iretq
.user_ud:
    ud2
.fault_first:
    EXPECT64_END 6, NONE64, .user_ud
    ; POPF that sets TF: the instruction after it is stepped; one that clears it still traps
    EXPECT64_BEGIN .popf
    push qword 2
    push qword 0x102
    popfq
    popfq
.popf_next:
    call fail64
.popf:
    EXPECT64_END 1, NONE64, .popf_next
    ; MOV SS holds the step back for one instruction
    xor eax, eax
    mov dr6, rax
    EXPECT64_BEGIN .mov_ss
    mov ax, SEL_DATA
    push qword 0x102
    popfq
    mov ss, ax
    nop
.mov_ss_next:
    nop
    call fail64
.mov_ss:
    EXPECT64_END 1, NONE64, .mov_ss_next
    ; SYSCALL with TF masked: no #DB in the kernel; SYSRET with TF: #DB at once
    mov ecx, 0xc0000081                             ; STAR
    xor eax, eax
    mov edx, (0x30 << 16) | SEL_CODE64
    wrmsr
    mov ecx, 0xc0000082
    mov rax, .syscall_entry
    cdq
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x100
    xor edx, edx
    wrmsr
    xor eax, eax
    mov dr6, rax
    EXPECT64_BEGIN .syscall_done
    push qword SEL_USER_DATA
    push qword user_stack_top
    push qword 0x102
    push qword SEL_USER_CODE64
    push qword .user_syscall
    iretq
.user_syscall:
    syscall
.user_syscall_next:
    nop
    int 0x30
.syscall_entry:
    mov qword [in_syscall], 1
    bt r11, 8
    jc .tf_saved
    call fail64
.tf_saved:
    o64 sysret
.syscall_done:
    EXPECT64_END 1, NONE64, .user_syscall_next
    CHECK64 [in_syscall], 1
    CHECK64 [seen64_cs], SEL_USER_CODE64
    ; IRETQ with TF: one instruction first
    EXPECT64_BEGIN .iret_kernel
    mov rbp, rsp
    push qword SEL_DATA
    push rbp
    push qword 0x102
    push qword SEL_CODE64
    push qword .iret_target
    iretq
.iret_target:
    nop
.iret_target_next:
    call fail64
.iret_kernel:
    EXPECT64_END 1, NONE64, .iret_target_next
    CHECK64 [seen64_user_rsp], rbp
    ; REP: a trap after each iteration, RIP still at the instruction, RF set
    mov rsi, scratch
    mov rdi, scratch + 16
    mov ecx, 3
    EXPECT64_BEGIN .rep
    push qword 0x102
    popfq
.rep_site:
    rep movsb
    call fail64
.rep:
    EXPECT64_END 1, NONE64, .rep_site
    CHECK64 rcx, 2
    xor eax, eax
    mov dr6, rax
    ret

restart_flag:
    ; faults push RF set
    UD ud2
    mov rax, [seen64_flags]
    and eax, 0x10000
    CHECK64 rax, 0x10000
    PF64 0, TEST_BASE, {mov eax, [TEST_BASE]}
    mov rax, [seen64_flags]
    and eax, 0x10000
    CHECK64 rax, 0x10000
    TRAP64 0x55, int 0x55
    mov rax, [seen64_flags]
    and eax, 0x10000
    CHECK64 rax, 0
    ; an instruction breakpoint: a fault, RF clear; IRETQ with RF set passes it once
    mov rax, .site
    mov dr0, rax
    mov eax, 0x402
    mov dr7, rax
    EXPECT64_BEGIN .hit
    jmp .site
.site:
    nop
    call fail64
.hit:
    EXPECT64_END 1, NONE64, .site
    mov rax, [seen64_flags]
    and eax, 0x10000
    CHECK64 rax, 0
    xor eax, eax
    mov dr6, rax
    EXPECT64_BEGIN .hit_again
    mov rbp, rsp
    xor ebx, ebx
    push qword SEL_DATA
    push rbp
    push qword 0x10002
    push qword SEL_CODE64
    mov rax, .resumed
    mov dr0, rax
    push rax
    iretq
.resumed:
    inc ebx
    pushfq
    pop rax
    and eax, 0x10000
    jnz .rf_stuck
    cmp ebx, 1
    je .resumed                                     ; RF lasts one instruction: the second pass hits
.rf_stuck:
    call fail64
.hit_again:
    EXPECT64_END 1, NONE64, .resumed
    CHECK64 rbx, 1
    xor eax, eax
    mov dr7, rax
    mov dr6, rax
    ret

double_fault:
    ; a contributory exception while one is delivered
    mov byte [idt + 13 * 16 + 5], 0x0e
    mov rax, cr4
    bts rax, 63
    FAULT64 8, 0, {mov cr4, rax}
    mov byte [idt + 13 * 16 + 5], 0x8e
    ; a page fault while a page fault is delivered
    mov byte [idt + 8 * 16 + 4], 1
    EXPECT64_BEGIN .stack_gone
    mov rsp, TEST_BASE + 0x1000
.stack_gone_site:
    mov eax, [TEST_BASE]
    call fail64
.stack_gone:
    EXPECT64_END 8, 0, .stack_gone_site
    CHECK64 [seen64_rsp], ist_stack_top
    ; a benign one before it: the second is taken instead (#UD, then #PF on IST)
    mov byte [idt + 14 * 16 + 4], 1
    EXPECT64_BEGIN .benign
    mov rsp, TEST_BASE + 0x1000
.benign_site:
    ud2
.benign:
    EXPECT64_END 14, 2, .benign_site
    CHECK64 [seen64_cr2], TEST_BASE + 0xff8
    mov byte [idt + 14 * 16 + 4], 0
    mov byte [idt + 8 * 16 + 4], 0
    ret

section .data
align 16
scratch: dq 0, 0, 0, 0
far_target: dq 0, 0
handler_flags: dq 0
handler_ss: dq -1
in_syscall: dq 0
short_idt:
    dw 0x80 * 16 - 1
    dq idt
section .bss
alignb 16
fx_area: resb 544
section .text
