; SYSCALL and SYSRET, SYSENTER and SYSEXIT, SWAPGS, FS and GS bases as MSRs and instructions, compatibility-mode system calls.
; STAR: SYSCALL CS 0x28; SYSRET base 0x30: 32-bit CS 0x33, SS 0x3b, 64-bit CS 0x43.
; SYSENTER_CS needs code64, data, user code 32, user data, user code 64 in a row: a GDT of its own.
%include "long.inc"

%define MSR_SYSENTER_CS 0x174
%define MSR_SYSENTER_ESP 0x175
%define MSR_SYSENTER_EIP 0x176
%define MSR_EFER 0xc0000080
%define MSR_STAR 0xc0000081
%define MSR_LSTAR 0xc0000082
%define MSR_FMASK 0xc0000084
%define MSR_FS_BASE 0xc0000100
%define MSR_GS_BASE 0xc0000101
%define MSR_KERNEL_GS_BASE 0xc0000102

%macro WRMSR64 2
    mov ecx, %1
    mov rax, %2
    mov rdx, rax
    shr rdx, 32
    wrmsr
%endmacro
%macro LOAD_HIGH 2                      ; the upper-half alias of a label (an ELF32 relocation has 32 bits)
    mov %1, 0xffffffff80000000
    add %1, %2
%endmacro
%macro RDMSR64 1                        ; to RAX
    mov ecx, %1
    rdmsr
    shl rdx, 32
    or rax, rdx
%endmacro

main64:
    lgdt [gdt_sys_pointer]
    xor eax, eax
    cpuid
    cmp ecx, 0x6c65746e                 ; "ntel"
    sete [is_intel]
    WRMSR64 MSR_STAR, (0x0030 << 48) | (SEL_CODE64 << 32) | 0x12345678
    WRMSR64 MSR_FMASK, 0x40700          ; AC, DF, IF, TF
    call syscall_basics
    call sysret_returns
    call sysret_canonical
    call syscall_off
    call base_registers
    call swapgs_and_rings
    call base_instructions
    cmp byte [is_intel], 1
    jne .no_sysenter                    ; AMD: #UD in IA-32e mode
    call sysenter64
.no_sysenter:
    call compatibility
    ret

; -- SYSCALL: RCX, R11, flags, selectors; the stack stays the user's --
syscall_basics:
    WRMSR64 MSR_LSTAR, .entry
    EXPECT64_BEGIN .done
    push qword SEL_USER_DATA
    push qword user_stack_top
    push qword 2
    push qword SEL_USER_CODE64
    push qword .user
    iretq
.user:
    mov rcx, -1
    mov r11, -1
    push qword 0x40cd7                  ; AC, DF, OF, arithmetic flags
    popfq
    syscall
.user_next:
    int 0x30
.entry:
    pushfq
    pop qword [in_flags]
    mov [in_rsp], rsp
    mov [in_rcx], rcx
    mov [in_r11], r11
    mov eax, cs
    mov [in_cs], rax
    mov eax, ss
    mov [in_ss], rax
    cld
    push qword 2
    popfq
    cli                                 ; ring 0 indeed
    o64 sysret
.done:
    mov qword [resume64], 0
    CHECK64 [seen64_vector], 0x30
    CHECK64 [seen64_ip], .user_next + 2
    CHECK64 [in_rcx], .user_next
    CHECK64 [in_r11], 0x40cd7
    CHECK64 [in_flags], 0x8d7
    CHECK64 [in_rsp], user_stack_top
    CHECK64 [in_cs], SEL_CODE64
    CHECK64 [in_ss], SEL_CODE64 + 8
    ; and back
    CHECK64 [seen64_cs], SEL_USER_CODE64
    CHECK64 [seen64_ss], SEL_USER_DATA
    mov rax, [seen64_flags]
    CHECK64 rax, 0x40cd7
    CHECK64 [seen64_user_rsp], user_stack_top
    ; from ring 0 it works as well
    WRMSR64 MSR_LSTAR, .entry0
    mov rbp, rsp
    push qword 2
    popfq
    syscall
.next0:
    call fail64
.entry0:
    mov rax, .next0
    CHECK64 rcx, rax
    CHECK64 r11, 2
    mov rcx, rsp
    CHECK64 rcx, rbp
    mov ax, SEL_DATA
    mov ss, ax
    ret

; -- SYSRET: R11's reserved bits, RF and VM, 32-bit returns --
sysret_returns:
    EXPECT64_BEGIN .long
    mov rcx, .user
    mov r11, -1 - 0x100 - 0x200 - 0x40000 - 0x3000 - 0x4000 - 0x180000     ; no TF, IF, AC, IOPL, NT, VIF, VIP
    mov rsp, user_stack_top
    o64 sysret
.user:
    int 0x30
.long:
    mov qword [resume64], 0
    CHECK64 [seen64_vector], 0x30
    CHECK64 [seen64_flags], 0x200cd7                        ; ID; reserved bits, RF and VM are off
    cld
    ; SYSRET without REX.W: 32-bit code at ECX
    EXPECT64_BEGIN .compat
    mov rcx, 0xffffffff00000000
    mov rax, .user32
    or rcx, rax
    mov r11d, 2
    mov rsp, user_stack_top
    sysret
bits 32
.user32:
    inc eax                             ; a REX prefix, were this 64-bit mode
    dec eax
    int 0x30
bits 64
.compat:
    mov qword [resume64], 0
    CHECK64 [seen64_vector], 0x30
    CHECK64 [seen64_cs], SEL_USER_CODE32
    CHECK64 [seen64_ss], SEL_USER_DATA
    CHECK64 [seen64_ip], .user32 + 4
    ret

sysret_canonical:
    cmp byte [is_intel], 1
    jne .amd
    mov rcx, 0x800000000000
    mov r11, 2
    FAULT64 13, 0, o64 sysret           ; in ring 0, on the kernel's RSP
    mov rax, [seen64_cs]
    CHECK64 rax, SEL_CODE64
    CHECK64 rcx, 0x800000000000
    ; the 32-bit form does not care
    EXPECT64_BEGIN .compat
    mov rcx, 0x800000000000
    mov rax, sysret_returns.user32
    or rcx, rax
    mov rsp, user_stack_top
    sysret
.compat:
    mov qword [resume64], 0
    CHECK64 [seen64_vector], 0x30
.amd:
    USER_FAULT64 13, 0, o64 sysret
    ret

syscall_off:
    mov ecx, MSR_EFER
    rdmsr
    mov ebx, eax
    and eax, ~1
    wrmsr
    FAULT64 6, NONE64, syscall
    FAULT64 6, NONE64, o64 sysret
    USER_FAULT64 6, NONE64, syscall
    USER_FAULT64 6, NONE64, o64 sysret  ; before the privilege check
    mov eax, ebx
    xor edx, edx
    mov ecx, MSR_EFER
    wrmsr
    ret

; -- FS and GS bases --
base_registers:
    WRMSR64 MSR_FS_BASE, data_a
    WRMSR64 MSR_GS_BASE, data_b
    LOAD_HIGH rbx, data_c
    WRMSR64 MSR_KERNEL_GS_BASE, rbx
    mov rax, [fs:0]
    CHECK64 rax, 0xaaaa
    mov rax, [gs:0]
    CHECK64 rax, 0xbbbb
    mov rax, [gs:8]
    CHECK64 rax, 0xb8b8
    swapgs
    mov rax, [gs:0]
    CHECK64 rax, 0xcccc
    RDMSR64 MSR_KERNEL_GS_BASE
    CHECK64 rax, data_b
    RDMSR64 MSR_GS_BASE
    LOAD_HIGH rbx, data_c
    CHECK64 rax, rbx
    swapgs
    ; LEA takes no base; a 32-bit address wraps before the base is added
    lea rax, [fs:8]
    CHECK64 rax, 8
    mov rbx, 0xffffffff00000008
    mov rax, [fs:ebx]
    CHECK64 rax, 0xa8a8
    ; base + offset past 2^64 wraps
    mov rbx, -8
    add rbx, 8
    mov rax, [gs:rbx]
    CHECK64 rax, 0xbbbb
    mov rbx, 16
    neg rbx
    WRMSR64 MSR_FS_BASE, data_a + 16
    mov rax, [fs:rbx]
    CHECK64 rax, 0xaaaa
    mov rax, [fs:-16]
    CHECK64 rax, 0xaaaa
    ; base + offset not canonical: #GP(0)
    WRMSR64 MSR_FS_BASE, 0x7ffffffff000
    FAULT64 13, 0, mov rax, [fs:0x1000]
    ; CS, DS, ES and SS have no base in 64-bit mode
    mov dword [gdt_sys_test], 0x1000ffff
    mov dword [gdt_sys_test + 4], 0x00cf9200
    mov ax, gdt_sys_test - gdt_sys
    mov ds, ax
    mov rax, [data_a]
    CHECK64 rax, 0xaaaa
    mov ax, SEL_DATA
    mov ds, ax
    ; a selector load sets the base from the descriptor: 32 bits, the upper half cleared
    WRMSR64 MSR_FS_BASE, 0x7fff00000000
    mov word [gdt_sys_test], 0xffff
    mov rax, data_a
    mov [gdt_sys_test + 2], ax
    shr eax, 16
    mov [gdt_sys_test + 4], al
    mov ax, gdt_sys_test - gdt_sys
    mov fs, ax
    RDMSR64 MSR_FS_BASE
    CHECK64 rax, data_a
    mov rax, [fs:0]
    CHECK64 rax, 0xaaaa
    ; SGDT, PUSH FS, POP FS in 64-bit mode
    push fs
    mov rax, [rsp]
    and eax, 0xffff
    CHECK64 rax, gdt_sys_test - gdt_sys
    pop fs
    xor eax, eax
    mov fs, ax
    ret

swapgs_and_rings:
    ; the kernel entry of every system: SWAPGS, per-CPU data, SWAPGS, back
    WRMSR64 MSR_GS_BASE, data_b                     ; the user's
    WRMSR64 MSR_KERNEL_GS_BASE, data_c
    WRMSR64 MSR_LSTAR, .entry
    xor r12, r12
    USER64 .user
    CHECK64 r12, 1000
    CHECK64 r13, 1000 * (0xcccc + 0xbbbb)
    RDMSR64 MSR_GS_BASE
    CHECK64 rax, data_b
    ret
.user:
    xor r12d, r12d
    xor r13d, r13d
.again:
    syscall
    add r13, [gs:0]
    inc r12
    cmp r12, 1000
    jne .again
    int 0x30
.entry:
    swapgs
    mov [gs:16], rsp
    mov rsp, kernel_stack_top
    push rcx
    add r13, [gs:0]
    pop rcx
    mov rsp, [gs:16]
    swapgs
    o64 sysret

base_instructions:
    mov eax, 7
    xor ecx, ecx
    cpuid
    bt ebx, 0
    jnc .none
    FAULT64 6, NONE64, rdfsbase rax                 ; CR4.FSGSBASE
    mov rax, cr4
    bts rax, 16
    mov cr4, rax
    LOAD_HIGH rax, data_a
    wrfsbase rax
    mov rbx, [fs:8]
    CHECK64 rbx, 0xa8a8
    rdfsbase rcx
    CHECK64 rcx, rax
    rdfsbase ecx
    mov eax, eax
    CHECK64 rcx, rax
    wrfsbase eax                                    ; 32 bits, zero-extended
    rdfsbase rcx
    CHECK64 rcx, rax
    mov rax, data_b
    wrgsbase rax
    mov rbx, [gs:0]
    CHECK64 rbx, 0xbbbb
    rdgsbase rcx
    CHECK64 rcx, rax
    mov rbx, 0x800000000000
    FAULT64 13, 0, wrfsbase rbx
    FAULT64 13, 0, wrgsbase rbx
    RDMSR64 MSR_GS_BASE
    CHECK64 rax, data_b
    ; allowed in ring 3
    USER64 .user
    CHECK64 r14, 0xcccc
    FAULT64 6, NONE64, db 0xf0, 0xf3, 0x48, 0x0f, 0xae, 0xc0
    mov rax, cr4
    btr rax, 16
    mov cr4, rax
.none:
    ret
.user:
    mov rax, data_c
    wrgsbase rax
    mov r14, [gs:0]
    int 0x30

; -- SYSENTER and SYSEXIT, 64-bit --
sysenter64:
    WRMSR64 MSR_SYSENTER_CS, 0
    USER_FAULT64 13, 0, sysenter
    FAULT64 13, 0, sysexit
    WRMSR64 MSR_SYSENTER_CS, gdt_sys_enter - gdt_sys
    WRMSR64 MSR_SYSENTER_ESP, kernel_stack_top - 64
    WRMSR64 MSR_SYSENTER_EIP, .entry
    RDMSR64 MSR_SYSENTER_ESP
    CHECK64 rax, kernel_stack_top - 64
    USER_FAULT64 13, 0, sysexit
    EXPECT64_BEGIN .done
    ENTER_USER64 .user
.user:
    sysenter
    call fail64
.user_next:
    int 0x30
.entry:
    mov [in_rsp], rsp
    mov eax, cs
    mov [in_cs], rax
    mov eax, ss
    mov [in_ss], rax
    cli
    mov rcx, user_stack_top - 32
    mov rdx, .user_next
    o64 sysexit
.done:
    mov qword [resume64], 0
    CHECK64 [seen64_vector], 0x30
    CHECK64 [in_rsp], kernel_stack_top - 64
    CHECK64 [in_cs], gdt_sys_enter - gdt_sys
    CHECK64 [in_ss], gdt_sys_enter - gdt_sys + 8
    CHECK64 [seen64_cs], gdt_sys_enter - gdt_sys + 32 + 3
    CHECK64 [seen64_ss], gdt_sys_enter - gdt_sys + 40 + 3
    CHECK64 [seen64_user_rsp], user_stack_top - 32
    ; not canonical: #GP(0)
    mov rcx, 0x800000000000
    mov rdx, .user_next
    FAULT64 13, 0, o64 sysexit
    mov rdx, rcx
    mov rcx, user_stack_top
    FAULT64 13, 0, o64 sysexit
    ; the 32-bit SYSEXIT: EDX, ECX; 32-bit code
    EXPECT64_BEGIN .compat
    mov rax, 0xffffffff00000000
    mov rcx, user_stack_top
    or rcx, rax
    mov rdx, sysret_returns.user32
    or rdx, rax
    sysexit
.compat:
    mov qword [resume64], 0
    CHECK64 [seen64_vector], 0x30
    CHECK64 [seen64_cs], gdt_sys_enter - gdt_sys + 16 + 3
    CHECK64 [seen64_ss], gdt_sys_enter - gdt_sys + 24 + 3
    CHECK64 [seen64_user_rsp], user_stack_top
    CHECK64 [seen64_ip], sysret_returns.user32 + 4
    ; SYSENTER out of compatibility mode arrives in 64-bit mode
    EXPECT64_BEGIN .compat_enter
    mov rcx, user_stack_top
    mov rdx, .user32
    sysexit
bits 32
.user32:
    sysenter
bits 64
.compat_enter:
    mov qword [resume64], 0
    CHECK64 [seen64_vector], 0x30
    CHECK64 [in_cs], gdt_sys_enter - gdt_sys
    CHECK64 [seen64_cs], gdt_sys_enter - gdt_sys + 32 + 3
    ret

; -- Compatibility mode in ring 3: INT 0x80 with 32-bit registers; 32-bit segments matter again; SYSCALL is #UD there on Intel --
compatibility:
    mov rax, .int80
    mov rdi, idt + 0x80 * 16
    mov [rdi], ax
    shr rax, 16
    mov [rdi + 6], ax
    mov byte [rdi + 5], 0xee
    mov r8, 0x1122334455667788
    EXPECT64_BEGIN .done
    push qword SEL_USER_DATA
    push qword user_stack_top
    push qword 2
    push qword SEL_USER_CODE32
    push qword .user32
    mov ax, SEL_USER_DATA
    mov ds, ax
    mov es, ax
    iretq
bits 32
.user32:
    mov eax, 4
    mov ebx, 0x11
    push dword 0x55555555
    int 0x80
.user32_next:
    pop ebx
    cmp esp, user_stack_top
    jne .bad
    cmp eax, 0x15
    jne .bad
    xor ax, ax
    mov ds, ax
.null_site:
    mov eax, [in_cs]                    ; a null DS faults in compatibility mode
.bad:
    int 0x30
bits 64
.int80:
    mov [in_r11], r8                    ; R8 to R15 live on below
    mov rcx, [rsp]
    mov [in_rcx], rcx
    mov rcx, [rsp + 8]
    mov [in_cs], rcx
    mov rcx, [rsp + 24]
    mov [in_rsp], rcx
    mov [in_flags], rsp
    add eax, ebx
    iretq
.done:
    EXPECT64_END 13, 0, .null_site
    CHECK64 [in_rcx], .user32_next
    CHECK64 [in_cs], SEL_USER_CODE32
    CHECK64 [in_rsp], user_stack_top - 4
    CHECK64 [in_flags], kernel_stack_top - 40
    CHECK64 [in_r11], 0x1122334455667788
    CHECK64 [seen64_cs], SEL_USER_CODE32
    cmp byte [is_intel], 1
    jne .amd
    EXPECT64_BEGIN .no_syscall
    push qword SEL_USER_DATA
    push qword user_stack_top
    push qword 2
    push qword SEL_USER_CODE32
    push qword .syscall_site
    iretq
.syscall_site:
    syscall
.no_syscall:
    EXPECT64_END 6, NONE64, .syscall_site
.amd:
    ; 64-bit far return into 16-bit code and back: the default sizes change
    EXPECT64_BEGIN .code16
    mov dword [gdt_sys_test], 0x0000ffff
    mov dword [gdt_sys_test + 4], 0x008f9a00        ; base 0, limit 4 GiB, D = 0
    push qword gdt_sys_test - gdt_sys
    push qword .in16
    o64 retf
bits 16
.in16:
    mov eax, 0x12345678
    mov ax, 0x9abc
    int 0x55
bits 64
.code16:
    mov qword [resume64], 0
    CHECK64 [seen64_vector], 0x55
    CHECK64 [seen64_rax], 0x12349abc
    CHECK64 [seen64_cs], gdt_sys_test - gdt_sys
    ret

section .data
align 8
in_flags: dq 0
in_rsp: dq 0
in_rcx: dq 0
in_r11: dq 0
in_cs: dq 0
in_ss: dq 0
data_a: dq 0xaaaa, 0xa8a8, 0
data_b: dq 0xbbbb, 0xb8b8, 0
data_c: dq 0xcccc, 0xc8c8, 0
is_intel: db 0
align 8
gdt_sys:                                ; the first nine as in common.inc
    dq 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00009a000000ffff, 0x000092000000ffff, 0x00af9a000000ffff
    dq 0x00cffa000000ffff, 0x00cff2000000ffff, 0x00affa000000ffff
    dq 0, 0
gdt_sys_enter:
    dq 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cffa000000ffff, 0x00cff2000000ffff, 0x00affa000000ffff, 0x00cff2000000ffff
gdt_sys_test:
    dq 0
gdt_sys_end:
gdt_sys_pointer:
    dw gdt_sys_end - gdt_sys - 1
    dq gdt_sys
section .text
