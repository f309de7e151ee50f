; Virtual-8086 mode: entry by IRET, exceptions and interrupts to ring 0 with the segments saved and zeroed, IOPL-sensitive instructions,
; the I/O bitmap, segment * 16 addressing, return. No VME.
%include "common.inc"

%define V86 0x20000
%define IOPL3 0x3000
%define CODE 0x8000                     ; the low copy of v86_code, segment 0x800
%define AT(label) (label - v86_code)

; V86_RUN flags, entry: to CS 0x800, SS:SP 0x900:0x800, DS 0x1111, ES 0x2222, FS 0x3333, GS 0x4444; goes on here at the next event.
; EBX, ECX, EDX are the guest's and ours.
%macro V86_RUN 2
    EXPECT_BEGIN %%after
    push dword 0x4444
    push dword 0x3333
    push dword 0x1111
    push dword 0x2222
    push dword 0x900
    push dword 0x800
    push dword %1
    push dword 0x800
    push dword AT(%2)
    iretd
%%after:
    mov dword [resume], 0
%endmacro
%macro SEEN 3                           ; vector, error, IP
    CHECK [seen_vector], %1
    CHECK [seen_error], %2
    CHECK [seen_ip], AT(%3)
%endmacro
; V86_FAULT flags, vector, error, label: the instruction there faults
%macro V86_FAULT 4
    V86_RUN V86 | 2 | %1, %4
    SEEN %2, %3, %4
%endmacro

main:
    mov esi, v86_code
    mov edi, CODE
    mov ecx, v86_code_end - v86_code
    rep movsb
    mov byte [idt + 0x31 * 8 + 5], 0xee             ; another gate of DPL 3

    ; -- an exception: the frame, the segments --
    V86_RUN V86 | 2, ud
    SEEN 6, NONE, ud
    CHECK [seen_cs], 0x800
    mov eax, [seen_flags]
    and eax, 0x3f7fff
    and eax, ~0x10000                               ; RF
    CHECK eax, V86 | 2
    mov esi, [seen_esp]
    CHECK [esi], 0x800
    CHECK [esi + 4], 0x900
    CHECK [esi + 8], 0x2222
    CHECK [esi + 12], 0x1111
    CHECK [esi + 16], 0x3333
    CHECK [esi + 20], 0x4444
    add esi, 24
    CHECK esi, kernel_stack_top
    movzx eax, word [seen_ds]
    CHECK eax, 0
    movzx eax, word [seen_es]
    CHECK eax, 0
    movzx eax, word [seen_fs]
    CHECK eax, 0
    movzx eax, word [seen_gs]
    CHECK eax, 0
    ; the handler runs without VM, in ring 0
    pushfd
    pop eax
    and eax, V86
    CHECK eax, 0

    ; -- addresses: segment * 16, values of the segment registers, 16-bit stack --
    V86_RUN V86 | 2 | IOPL3, addresses
    SEEN 0x30, NONE, addresses_end
    CHECK [0x1111 * 16 + 0x20], 0x11111111
    CHECK [0x2222 * 16 + 0x20], 0x22222222
    CHECK [0x3333 * 16 + 0x20], 0x33333333
    CHECK [0x4444 * 16 + 0x20], 0x44444444
    CHECK [0x900 * 16 + 0x800 - 4], 0x5555aaaa      ; PUSH
    CHECK [0x12350 + 6], 0x6666                     ; DS loaded as in real mode
    CHECK edx, 0x1235
    mov eax, ebx
    CHECK eax, 0x7fc
    ; far CALL and RETF, far JMP as in real mode
    V86_RUN V86 | 2 | IOPL3, far_calls
    SEEN 0x30, NONE, far_calls_end
    CHECK ebx, 0xfa9
    CHECK ecx, 0x801
    ; an offset above 0xffff: #GP(0), in SS #SS(0), a word at 0xffff too
    V86_FAULT 0, 13, 0, beyond
    V86_FAULT 0, 13, 0, wraps
    V86_FAULT 0, 12, 0, stack_beyond
    V86_FAULT 0, 12, 0, stack_wraps
    ; 0xffff:0x10 is 1 MiB: no wrap-around at 20 bits
    mov dword [0x100000 + 0x1000], 0
    mov eax, [0x100000]
    V86_RUN V86 | 2 | IOPL3, high
    SEEN 0x30, NONE, high_end
    CHECK ebx, eax
    mov eax, [0x100000]
    CHECK [seen_eax], eax

    ; -- privileged instructions: #GP(0) whatever IOPL --
    V86_FAULT IOPL3, 13, 0, v_hlt
    V86_FAULT IOPL3, 13, 0, v_mov_cr0
    V86_FAULT IOPL3, 13, 0, v_to_cr0
    V86_FAULT IOPL3, 13, 0, v_mov_dr
    V86_FAULT IOPL3, 13, 0, v_lgdt
    V86_FAULT IOPL3, 13, 0, v_lidt
    V86_FAULT IOPL3, 13, 0, v_lmsw
    V86_FAULT IOPL3, 13, 0, v_clts
    V86_FAULT IOPL3, 13, 0, v_rdmsr
    V86_FAULT IOPL3, 13, 0, v_invlpg
    V86_FAULT IOPL3, 13, 0, v_wbinvd
    ; protected-mode instructions: #UD
    V86_FAULT IOPL3, 6, NONE, v_lldt
    V86_FAULT IOPL3, 6, NONE, v_ltr
    V86_FAULT IOPL3, 6, NONE, v_sldt
    V86_FAULT IOPL3, 6, NONE, v_str
    V86_FAULT IOPL3, 6, NONE, v_lar
    V86_FAULT IOPL3, 6, NONE, v_lsl
    V86_FAULT IOPL3, 6, NONE, v_verr
    V86_FAULT IOPL3, 6, NONE, v_arpl
    V86_RUN V86 | 2 | IOPL3, smsw_works
    SEEN 0x30, NONE, smsw_works_end
    mov eax, [seen_eax]
    and eax, 1
    CHECK eax, 1

    ; -- IOPL below 3: CLI, STI, PUSHF, POPF, IRET, INT n fault; INT3, INTO, BOUND, IN and OUT go their own ways --
%assign iopl 0
%rep 3
    V86_FAULT iopl * 0x1000, 13, 0, v_cli
    V86_FAULT iopl * 0x1000, 13, 0, v_sti
    V86_FAULT iopl * 0x1000, 13, 0, v_pushf
    V86_FAULT iopl * 0x1000, 13, 0, v_pushfd
    V86_FAULT iopl * 0x1000, 13, 0, v_popf
    V86_FAULT iopl * 0x1000, 13, 0, v_popfd
    V86_FAULT iopl * 0x1000, 13, 0, v_iret
    V86_FAULT iopl * 0x1000, 13, 0, v_iretd
    V86_FAULT iopl * 0x1000, 13, 0, v_int30
    V86_RUN V86 | 2 | iopl * 0x1000, v_int3
    SEEN 3, NONE, v_int3_end
    V86_RUN V86 | 2 | iopl * 0x1000 | 0x800, v_into
    SEEN 4, NONE, v_into_end
    V86_FAULT iopl * 0x1000, 5, NONE, v_bound
    V86_FAULT iopl * 0x1000, 0, NONE, v_div
%assign iopl iopl + 1
%endrep

    ; -- IOPL 3: they work on the real flags --
    V86_RUN V86 | 2 | IOPL3, flags
    SEEN 0x30, NONE, flags_end
    CHECK ebx, 0x3002                               ; PUSHF at first: IOPL is visible
    CHECK ecx, 0x3202                               ; after STI
    CHECK edx, 0x3cd7                               ; POPF: all but IOPL
    mov eax, [seen_flags]
    and eax, V86 | IOPL3
    CHECK eax, V86 | IOPL3                          ; POPFD changed neither VM nor IOPL
    ; IRET within virtual-8086 mode
    V86_RUN V86 | 2 | IOPL3, iret_inside
    SEEN 0x30, NONE, iret_inside_end
    CHECK ebx, 0x3057
    mov eax, [seen_flags]
    and eax, 0x3fffff - 0x10000
    CHECK eax, V86 | IOPL3 | 0x57
    ; INT n by its gate: DPL 3 passes, DPL 0 is #GP(n * 8 + 2); a gate to ring 3 code is refused
    V86_RUN V86 | 2 | IOPL3, v_int30
    SEEN 0x30, NONE, v_int30_end
    V86_FAULT IOPL3, 13, 0x55 * 8 + 2, v_int55
    mov word [idt + 0x31 * 8 + 2], SEL_USER_CODE32
    V86_FAULT IOPL3, 13, SEL_USER_CODE32 & ~3, v_int31
    mov dword [gdt_test], 0x0000ffff                ; conforming code of DPL 0: the handler would run in ring 3
    mov dword [gdt_test + 4], 0x00cf9e00
    mov word [idt + 0x31 * 8 + 2], SEL_TEST
    V86_FAULT IOPL3, 13, SEL_TEST, v_int31
    mov word [idt + 0x31 * 8 + 2], SEL_CODE32
    ; a trap gate leaves IF
    mov byte [idt + 0x31 * 8 + 5], 0xef
    mov eax, trap_gate
    mov [idt + 0x31 * 8], ax
    shr eax, 16
    mov [idt + 0x31 * 8 + 6], ax
    V86_RUN V86 | 2 | IOPL3, v_int31_twice
    SEEN 0x30, NONE, v_int31_twice_end
    CHECK ebx, 2
    CHECK ecx, 0x900                                ; ES, DS come back with IRET
    ; single step
    V86_RUN V86 | 2 | IOPL3 | 0x100, stepped
    SEEN 1, NONE, stepped_next

    ; -- ports: the bitmap decides, IOPL does not --
    mov word [tss + 102], 104
    mov dword [tss + 104 + 0x10], 0xfffffffc        ; 0x80, 0x81 open
    mov dword [tss + 104 + 0x14], 0xffffffff
    V86_FAULT IOPL3, 13, 0, v_in                    ; outside the TSS's limit
    mov word [gdt_tss], 0x67 + 0x20
    mov byte [gdt_tss + 5], 0x89
    mov ax, SEL_TSS
    ltr ax
    V86_RUN V86 | 2 | IOPL3, v_ports
    SEEN 0x30, NONE, v_ports_end
    V86_FAULT IOPL3, 13, 0, v_in82
    V86_FAULT 0, 13, 0, v_in81_word
    V86_FAULT 0, 13, 0, v_in80_dword
    mov edx, 0x83
    V86_FAULT 0, 13, 0, v_outs

    ; -- returns: IRETD with VM set from ring 3 does not enter; IRETD of 16 bits cannot --
    EXPECT_BEGIN .not_from_3
    push dword SEL_USER_DATA
    push dword user_stack_top
    push dword 2
    push dword SEL_USER_CODE32
    push dword .ring3
    iretd
.ring3:
    push dword V86 | 2
    push dword SEL_USER_CODE32
    push dword .ring3_after
    iretd
.ring3_after:
    int 0x30
.not_from_3:
    mov dword [resume], 0
    CHECK [seen_vector], 0x30
    CHECK [seen_cs], SEL_USER_CODE32
    ; POPFD in ring 0 leaves VM alone
    push dword V86 | 2
    popfd
    pushfd
    pop eax
    CHECK eax, 2
    ret

trap_gate:
    inc ebx
    push ds
    pop eax
    and eax, 0xffff
    cmp eax, 0
    je .zero
    add ebx, 100
.zero:
    iretd

bits 16
v86_code:
ud:
    ud2
addresses:
    mov dword [0x20], 0x11111111
    mov dword [es:0x20], 0x22222222
    mov dword [fs:0x20], 0x33333333
    mov dword [gs:0x20], 0x44444444
    push dword 0x5555aaaa
    mov bp, sp
    cmp dword [bp], 0x5555aaaa          ; BP means SS
    jne v_hlt
    movzx ebx, sp
    mov ax, 0x1235
    mov ds, ax
    mov word [6], 0x6666
    xor edx, edx
    mov dx, ds
    int 0x30
addresses_end:
far_calls:
    mov ebx, 0xfa0
    xor ecx, ecx
    call 0x801:AT(.callee) - 16
    add ebx, 8
    jmp 0x7ff:AT(.jumped) + 16
.callee:
    mov cx, cs
    inc ebx
    retf
.jumped:
    int 0x30
far_calls_end equ far_calls.jumped + 2 + 16
beyond:
    mov al, [dword 0x10000]
wraps:
    mov ax, [0xffff]
stack_beyond:
    mov al, [ss:dword 0x12345]
stack_wraps:
    mov ax, [ss:0xffff]
high:
    mov ax, 0xffff
    mov ds, ax
    mov eax, [0x10]
    int 0x30
high_end:
v_hlt: hlt
v_mov_cr0: mov eax, cr0
v_to_cr0: mov cr0, eax
v_mov_dr: mov eax, dr7
v_lgdt: lgdt [0]
v_lidt: lidt [0]
v_lmsw: lmsw ax
v_clts: clts
v_rdmsr: rdmsr
v_invlpg: invlpg [0]
v_wbinvd: wbinvd
v_lldt: lldt ax
v_ltr: ltr ax
v_sldt: sldt ax
v_str: str ax
v_lar: lar ax, bx
v_lsl: lsl ax, bx
v_verr: verr ax
v_arpl: arpl ax, bx
smsw_works:
    smsw ax
    int 0x30
smsw_works_end:
v_cli: cli
v_sti: sti
v_pushf: pushf
v_pushfd: pushfd
v_popf: popf
v_popfd: popfd
v_iret: iret
v_iretd: iretd
v_int30: int 0x30
v_int30_end:
v_int31: int 0x31
v_int55: int 0x55
v_int3: int3
v_int3_end:
v_into: into
v_into_end:
v_bound: bound ax, [cs:AT(v_limits)]
v_limits: dw 0x7000, 0x7001
v_div: aam 0
flags:
    mov ebx, 0                          ; (XOR would change them)
    mov ecx, 0
    mov edx, 0
    pushf
    pop bx
    sti
    pushf
    pop cx
    cli
    push word 0x0cd7                    ; IOPL 0, IF off in the image
    popf
    pushf
    pop dx
    push dword 0x0002                   ; VM off in the image
    popfd
    int 0x30
flags_end:
iret_inside:
    xor ebx, ebx
    push word 0x0057
    push word 0x801
    push word AT(.target) - 16
    iret
.target:
    pushf
    pop bx
    int 0x30
iret_inside_end equ iret_inside.target + 2 + 2 - 16
v_int31_twice:
    mov ebx, 0
    mov ax, 0x900
    mov ds, ax
    mov es, ax
    int 0x31
    int 0x31
    xor ecx, ecx
    mov cx, ds
    mov ax, es
    cmp ax, cx
    jne v_hlt
    int 0x30
v_int31_twice_end:
stepped:
    nop
stepped_next:
    nop
v_in: in al, 0x80
v_ports:
    in al, 0x80
    out 0x80, al
    in ax, 0x80
    mov dx, 0x81
    out dx, al
    int 0x30
v_ports_end:
v_in82: in al, 0x82
v_in81_word: in ax, 0x81
v_in80_dword: in eax, 0x80
v_outs:
    outsb
v86_code_end:
bits 32
