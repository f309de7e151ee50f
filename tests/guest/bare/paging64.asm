; Four-level paging: every error code, A and D bits, WP, NX, SMEP, SMAP, global pages and INVLPG, PCID, page-crossing accesses,
; canonical faults, reserved bits.
%include "long.inc"

%macro MAP 2                            ; page number in pt_test, entry
    mov rax, %2
    mov [pt_test + %1 * 8], rax
    invlpg [TEST_BASE + %1 * 4096]
%endmacro

main64:
    mov r15, TEST_BASE
    PF64 0, TEST_BASE, {mov eax, [r15]}
    PF64 2, TEST_BASE, {mov [r15], eax}
    PF64 2, TEST_BASE, {add [r15], eax}
    PF64 2, TEST_BASE, {lock xadd [r15], eax}
    EXPECT64_BEGIN .fetched
    jmp r15
.fetched:
    EXPECT64_END 14, 0x10, TEST_BASE
    USER_PF64 4, TEST_BASE, {mov eax, [r15]}
    USER_PF64 6, TEST_BASE, {mov [r15], eax}

    ; A and D
    MAP 0, test_page + PTE_P + PTE_W
    mov eax, [r15]
    mov rax, [pt_test]
    and eax, PTE_A + PTE_D
    CHECK64 rax, PTE_A
    mov [r15], eax
    mov rax, [pt_test]
    and eax, PTE_A + PTE_D
    CHECK64 rax, PTE_A + PTE_D
    ; a page fault ends the entries of its page: what the tables say now counts, without INVLPG
    mov dword [test_page], 0x1111
    mov dword [test_page2], 0x2222
    mov ecx, 100
.ended:
    MAP 0, test_page + PTE_P
    mov eax, [r15]
    CHECK64 rax, 0x1111
    mov eax, test_page2 + PTE_P
    mov [pt_test], rax
    PF64 3, TEST_BASE, {mov [r15], eax}
    mov eax, [r15]
    CHECK64 rax, 0x2222
    mov eax, test_page + PTE_P + PTE_W  ; and more rights than an entry has are seen at once
    mov [pt_test], rax
    mov dword [r15], 0x3333
    CHECK64 [test_page], 0x3333
    mov dword [test_page], 0x1111
    dec ecx
    jnz .ended
    MAP 0, test_page + PTE_P + PTE_W
    mov [r15], eax
    ; a supervisor page from ring 3
    USER_PF64 5, TEST_BASE, {mov eax, [r15]}
    USER_PF64 7, TEST_BASE, {mov [r15], eax}
    ; read-only, WP set: the kernel faults too; WP clear: it does not
    MAP 0, test_page + PTE_P + PTE_U
    PF64 3, TEST_BASE, {mov [r15], eax}
    USER_PF64 7, TEST_BASE, {mov [r15], eax}
    mov rax, cr0
    and eax, ~0x10000
    mov cr0, rax
    mov dword [r15], 0x12345678
    mov rax, cr0
    or eax, 0x10000
    mov cr0, rax
    CHECK64 [test_page], 0x12345678
    ; D is not set by a read, and a faulting write sets neither
    MAP 0, test_page + PTE_P
    PF64 3, TEST_BASE, {mov [r15], eax}
    mov rax, [pt_test]
    and eax, PTE_D
    CHECK64 rax, 0
    ; NX
    MAP 0, test_page + PTE_P + PTE_W + PTE_U
    bts rax, 63
    mov [pt_test], rax
    invlpg [r15]
    mov byte [r15], 0xc3
    EXPECT64_BEGIN .nx
    call r15
.nx:
    EXPECT64_END 14, 0x11, TEST_BASE
    CHECK64 [seen64_cr2], TEST_BASE
    MAP 0, test_page + PTE_P + PTE_W + PTE_U
    call r15
    ; reserved bits: P and RSVD
    mov rax, test_page + PTE_P + PTE_W
    bts rax, 51
    mov [pt_test], rax
    invlpg [r15]
    PF64 9, TEST_BASE, {mov eax, [r15]}
    PF64 11, TEST_BASE, {mov [r15], eax}
    ; page-crossing: the second page faults with its own address, nothing is written
    MAP 0, test_page + PTE_P + PTE_W + PTE_U
    MAP 1, 0
    mov dword [r15 + 0xffc], 0x11111111
    mov rax, -1
    PF64 2, TEST_BASE + 0x1000, {mov [r15 + 0xffc], rax}
    CHECK64 [test_page + 0xff8], 0x1111111100000000
    PF64 0, TEST_BASE + 0x1000, {mov rax, [r15 + 0xff9]}
    MAP 1, test_page2 + PTE_P + PTE_W + PTE_U
    mov rax, 0x8877665544332211
    mov [r15 + 0xffb], rax
    CHECK64 [r15 + 0xffb], rax
    mov eax, [test_page2]
    and eax, 0xffffff
    CHECK64 rax, 0x887766
    ; a push that faults does not move RSP
    MAP 1, 0
    mov rbp, rsp
    EXPECT64_BEGIN .push
    mov byte [idt + 14 * 16 + 4], 1                ; on IST 1
    mov rsp, TEST_BASE + 0x1000 + 8
.push_site:
    push rax
    call fail64
.push:
    mov byte [idt + 14 * 16 + 4], 0
    EXPECT64_END 14, 2, .push_site
    CHECK64 [seen64_user_rsp], TEST_BASE + 0x1008
    CHECK64 [seen64_rsp], ist_stack_top
    mov rcx, rsp
    CHECK64 rcx, rbp

    ; a REP MOVSB stops exactly at the page it may not write
    MAP 0, test_page + PTE_P + PTE_W + PTE_U
    MAP 1, 0
    mov rsi, stubs64
    mov rdi, TEST_BASE + 0xff0
    mov ecx, 64
    PF64 2, TEST_BASE + 0x1000, rep movsb
    CHECK64 rcx, 48
    CHECK64 rdi, TEST_BASE + 0x1000

    ; canonical addresses
    mov rbx, 0x800000000000
    FAULT64 13, 0, {mov eax, [rbx]}
    FAULT64 13, 0, {mov [rbx - 4], rax}
    mov rbp, rbx
    FAULT64 12, 0, {mov eax, [rbp]}
    EXPECT64_BEGIN .stack
    mov byte [idt + 12 * 16 + 4], 1
    mov rsp, rbx
.stack_site:
    pop rax
    call fail64
.stack:
    EXPECT64_END 12, 0, .stack_site
    FAULT64 13, 0, jmp rbx
    ; the same byte through both mappings
    mov dword [test_page], 0x600dcafe
    mov rax, 0xffffffff80000000
    mov eax, [rax + test_page]
    CHECK64 rax, 0x600dcafe

    ; SMEP and SMAP, where there
    mov eax, 7
    xor ecx, ecx
    cpuid
    mov r14d, ebx
    ; everything of ours is a user page so far: make the low GiB supervisor-only first
    mov rdi, pd_low
    mov ecx, 512
.supervisor:
    and byte [rdi], ~4
    add rdi, 8
    loop .supervisor
    mov rbx, cr3
    mov cr3, rbx
    bt r14d, 7
    jnc .no_smep
    MAP 0, test_page + PTE_P + PTE_W + PTE_U
    mov byte [r15], 0xc3
    mov rax, cr4
    bts rax, 20
    mov cr4, rax
    EXPECT64_BEGIN .smep
    call r15
.smep:
    EXPECT64_END 14, 0x11, TEST_BASE
    mov rax, cr4
    btr rax, 20
    mov cr4, rax
.no_smep:
    bt r14d, 20
    jnc .no_smap
    mov rax, cr4
    bts rax, 21
    mov cr4, rax
    PF64 1, TEST_BASE, {mov eax, [r15]}
    PF64 3, TEST_BASE, {mov [r15], eax}
    stac
    mov eax, [r15]
    mov [r15], eax
    clac
    PF64 1, TEST_BASE, {mov eax, [r15]}
    mov rax, cr4
    btr rax, 21
    mov cr4, rax
    mov eax, [r15]
    FAULT64 6, NONE64, {lock stac}
.no_smap:
    mov rdi, pd_low
    mov ecx, 512
.user:
    or byte [rdi], 4
    add rdi, 8
    loop .user
    mov rbx, cr3
    mov cr3, rbx

    ; global pages survive a CR3 load, INVLPG takes them, CR4.PGE toggling too
    MAP 0, test_page + PTE_P + PTE_W + PTE_G
    mov eax, [r15]
    mov qword [pt_test], 0
    invlpg [r15]
    PF64 0, TEST_BASE, {mov eax, [r15]}
    MAP 0, test_page + PTE_P + PTE_W + PTE_G
    mov eax, [r15]
    mov qword [pt_test], 0
    mov rax, cr4
    btr rax, 7
    mov cr4, rax
    bts rax, 7
    mov cr4, rax
    PF64 0, TEST_BASE, {mov eax, [r15]}
    ; a CR3 load takes the others
    MAP 0, test_page + PTE_P + PTE_W
    mov eax, [r15]
    mov qword [pt_test], 0
    mov rax, cr3
    mov cr3, rax
    PF64 0, TEST_BASE, {mov eax, [r15]}

    ; PCID: another one must not see our entries; INVPCID takes them
    mov eax, 1
    cpuid
    bt ecx, 17
    jnc .no_pcid
    mov rax, cr4
    bts rax, 17
    mov cr4, rax
    MAP 0, test_page + PTE_P + PTE_W
    mov eax, [r15]
    mov qword [pt_test], 0
    mov rax, cr3
    or rax, 5
    mov cr3, rax
    PF64 0, TEST_BASE, {mov eax, [r15]}
    mov rax, cr3
    and rax, ~0xfff
    mov cr3, rax
    PF64 0, TEST_BASE, {mov eax, [r15]}
    bt r14d, 10
    jnc .no_invpcid
    MAP 0, test_page + PTE_P + PTE_W
    mov eax, [r15]
    mov qword [pt_test], 0
    mov qword [invpcid_descriptor], 0
    mov qword [invpcid_descriptor + 8], TEST_BASE
    xor eax, eax
    invpcid rax, [invpcid_descriptor]
    PF64 0, TEST_BASE, {mov eax, [r15]}
    mov eax, 4
    FAULT64 13, 0, {invpcid rax, [invpcid_descriptor]}
.no_invpcid:
    mov rax, cr3
    or rax, 1
    mov cr3, rax
    mov rax, cr4
    btr rax, 17
    mov cr4, rax                                   ; allowed: clearing PCIDE
    bts rax, 17
    FAULT64 13, 0, {mov cr4, rax}                  ; setting it with CR3[11:0] not 0 is not
.no_pcid:
    ret
section .data
align 16
invpcid_descriptor: dq 0, 0
section .text
