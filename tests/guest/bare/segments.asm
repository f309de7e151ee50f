; Segmentation of 32-bit protected mode: call gates with parameters through rings 0 to 3, far returns outwards, conforming code, LAR, LSL,
; VERR, VERW and ARPL, the LDT, descriptor-table registers, UMIP, LMSW.
%include "common.inc"

; A GDT of our own: the first entries as in common.inc, then rings 1 and 2, gates, and one descriptor of each sort.
%define S_CODE1 (g_code1 - gdt_seg + 1)
%define S_DATA1 (g_data1 - gdt_seg + 1)
%define S_CODE2 (g_code2 - gdt_seg + 2)
%define S_DATA2 (g_data2 - gdt_seg + 2)
%define S(name) (g_ %+ name - gdt_seg)

%macro GATE 4                           ; gdt entry, offset, selector, type and DPL and count as upper word
    mov eax, %2
    mov [%1], ax
    mov word [%1 + 2], %3
    mov word [%1 + 4], %4
    shr eax, 16
    mov [%1 + 6], ax
%endmacro
%macro CHECK_ZF 1                       ; 1 or 0 (the other flags of a query stay)
    setz al
    movzx eax, al
    CHECK eax, %1
%endmacro
; ENTER ring: continues at label in that ring, stack below user_stack_top
%macro ENTER 4                          ; label, cs, ss, stack
    push dword %3
    push dword %4
    push dword 2
    push dword %2
    push dword %1
    mov ax, %3
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    iretd
%endmacro

main:
    lgdt [gdt_seg_pointer]
    mov eax, tss
    mov [g_tss + 2], ax
    shr eax, 16
    mov [g_tss + 4], al
    mov [g_tss + 7], ah
    mov ax, SEL_TSS
    ltr ax
    mov dword [tss + 12], ring1_top     ; SS1:ESP1, SS2:ESP2
    mov dword [tss + 16], S_DATA1
    mov dword [tss + 20], ring2_top
    mov dword [tss + 24], S_DATA2
    call call_gates
    call call_gate_16
    call gate_faults
    call far_returns
    call conforming
    call queries
    call arpl_and_ldt
    call inner_rings
    call table_registers
    call umip
    call lmsw_cannot_leave
    lgdt [gdt_pointer]
    ret

; -- Rings 1 and 2 run the same code as ring 0 for a while: pages are theirs as its are, privileged instructions are not --
%macro IN_RING 3                        ; cs, ss, stack top
    EXPECT_BEGIN %%after
    ENTER %%there, %1, %2, %3
%%there:
    call triangle
    call interrupts_off
%%after:
    mov dword [resume], 0
    CHECK [seen_vector], 13
    CHECK [seen_error], 0
    CHECK [seen_cs], %1
    CHECK edx, 5000050000 & 0xffffffff
%endmacro

inner_rings:
    mov ebp, 200
.again:
    call interrupts_off               ; may in ring 0
    dec ebp
    jnz .again
    call triangle
    CHECK edx, 5000050000 & 0xffffffff
    IN_RING S_CODE1, S_DATA1, ring1_top
    IN_RING S_CODE2, S_DATA2, ring2_top
    call interrupts_off
    ret

interrupts_off:
    cli
    nop
    cli
    ret

; EDX = 1 + ... + 100000, over memory and the stack
triangle:
    mov ecx, 100000
    mov dword [scratch], 0
.next:
    push ecx
    call .add
    pop ecx
    loop .next
    mov edx, [scratch]
    ret
.add:
    mov eax, [esp + 4]
    add [scratch], eax
    ret

; -- From ring 3 through a gate to ring 0, 1, 2, with three parameters: the stack switch and what is pushed --
%macro THROUGH_GATE 4                   ; gate selector, handler's CS, its SS, its stack top
    EXPECT_BEGIN %%after
    ENTER %%ring3, SEL_USER_CODE32, SEL_USER_DATA, user_stack_top
%%ring3:
    push dword 0x33333333
    push dword 0x22222222
    push dword 0x11111111
    stc
    call %1:0xdeadbeef                  ; the offset is ignored
%%ring3_next:
    pushfd
    pop ecx
    mov edx, esp
    mov ebx, ds
    int 0x30
%%after:
    mov dword [resume], 0
    CHECK [seen_vector], 0x30
    CHECK [seen_cs], SEL_USER_CODE32
    CHECK [in_cs], %2
    CHECK [in_ss], %3
    CHECK [in_esp], %4 - 28
    CHECK [in_frame], %%ring3_next
    CHECK [in_frame + 4], SEL_USER_CODE32
    CHECK [in_frame + 8], 0x11111111
    CHECK [in_frame + 12], 0x22222222
    CHECK [in_frame + 16], 0x33333333
    CHECK [in_frame + 20], user_stack_top - 12
    CHECK [in_frame + 24], SEL_USER_DATA
    CHECK edx, user_stack_top           ; RETF 12 released them on both stacks
    and ecx, 1
    CHECK ecx, 1                        ; flags pass through
%endmacro

call_gates:
    GATE g_gate0, gate_target, SEL_CODE32, 0xec03
    GATE g_gate1, gate_target, S_CODE1, 0xec03
    GATE g_gate2, gate_target, S_CODE2, 0xec03
    THROUGH_GATE S(gate0) + 3, SEL_CODE32, SEL_DATA, kernel_stack_top
    THROUGH_GATE S(gate1) + 3, S_CODE1, S_DATA1, ring1_top
    CHECK ebx, SEL_USER_DATA            ; DS of ring 3 stays in ring 1 and comes back
    THROUGH_GATE S(gate2), S_CODE2, S_DATA2, ring2_top
    ; from ring 0 to its own ring: no stack switch, no parameters copied
    mov esi, esp
    push dword 0x77777777
    call S(gate0):0
.same:
    ; gate_target did RETF 12: the parameter and two dwords more
    lea eax, [esp - 8]
    mov esp, esi
    CHECK eax, esi
    CHECK [in_frame], .same
    CHECK [in_frame + 4], SEL_CODE32
    CHECK [in_frame + 8], 0x77777777
    ; a jump through a gate stays in the ring
    GATE g_gate0, .jumped, SEL_CODE32, 0xec00
    jmp S(gate0):0
    FAIL_HERE
.jumped:
    GATE g_gate0, gate_target, SEL_CODE32, 0xec03
    ; three rings deep and back: 3 -> 2 -> 1 -> 0
    GATE g_gate2, deep2, S_CODE2, 0xec00
    GATE g_gate1, deep1, S_CODE1, 0xcc00
    GATE g_gate0, deep0, SEL_CODE32, 0xac00
    EXPECT_BEGIN .deep
    ENTER .ring3, SEL_USER_CODE32, SEL_USER_DATA, user_stack_top
.ring3:
    xor ebx, ebx
    call S(gate2):0
    shl ebx, 4
    or ebx, 3
    int 0x30
.deep:
    mov dword [resume], 0
    CHECK [seen_vector], 0x30
    CHECK ebx, 0x210123
    GATE g_gate0, gate_target, SEL_CODE32, 0xec03
    ret
deep2:
    call ring_digit
    call S(gate1):0
    call ring_digit
    retf
deep1:
    call ring_digit
    call S(gate0):0
    call ring_digit
    retf
deep0:
    call ring_digit
    retf
ring_digit:
    mov eax, cs
    and eax, 3
    shl ebx, 4
    or ebx, eax
    ret

gate_target:
    push ds
    push eax
    mov ax, ss                          ; our own ring's data
    mov ds, ax
    mov eax, esp
    add eax, 8
    mov [in_esp], eax
    mov eax, cs
    mov [in_cs], eax
    mov eax, ss
    mov [in_ss], eax
    push esi
    push edi
    push ecx
    push es
    mov ax, ds
    mov es, ax
    lea esi, [esp + 24]
    mov edi, in_frame
    mov ecx, 7
    rep movsd
    pop es
    pop ecx
    pop edi
    pop esi
    pop eax
    pop ds
    stc
    retf 12

; A 16-bit gate copies words and pushes 16-bit SS:SP, CS:IP
call_gate_16:
    mov esi, code16
    mov edi, 0x8000
    mov ecx, code16_end - code16
    rep movsb
    GATE g_gate16, 0, S(code16), 0xe402
    mov byte [g_gate16 + 6], 0
    EXPECT_BEGIN .after
    ENTER .ring3, SEL_USER_CODE32, SEL_USER_DATA, 0x9f00
.ring3:
    push word 0x2222
    push word 0x1111
    call S(gate16) + 3:0
.next:
    FAIL_HERE                           ; IP was cut to 16 bits
.after:
    mov dword [resume], 0
    CHECK [seen_vector], 0x77
    mov esi, [seen_esp]                 ; the handler ran on the same ring-0 stack
    CHECK esi, kernel_stack_top - 12
    mov ax, [esi]
    and eax, 0xffff
    CHECK eax, .next - 0x100000
    mov ax, [esi + 2]
    CHECK eax, SEL_USER_CODE32
    CHECK [esi + 4], 0x22221111
    mov ax, [esi + 8]
    CHECK eax, 0x9efc
    mov ax, [esi + 10]
    CHECK eax, SEL_USER_DATA
    ret
bits 16
code16:
    int 0x77
code16_end:
bits 32

gate_faults:
    ; not present; DPL; RPL; the target
    GATE g_gate0, gate_target, SEL_CODE32, 0x6c00
    EXPECT_FAULT 11, S(gate0), call S(gate0):0
    GATE g_gate0, gate_target, SEL_CODE32, 0x8c00
    RING3_FAULT 13, S(gate0), call S(gate0):0       ; DPL 0
    GATE g_gate0, gate_target, SEL_CODE32, 0xcc00
    EXPECT_FAULT 13, S(gate0), call S(gate0) + 3:0  ; RPL above DPL
    GATE g_gate0, gate_target, 0, 0xec00
    EXPECT_FAULT 13, 0, call S(gate0):0
    GATE g_gate0, gate_target, SEL_DATA, 0xec00
    EXPECT_FAULT 13, SEL_DATA, call S(gate0):0
    GATE g_gate0, gate_target, SEL_BEYOND, 0xec00
    EXPECT_FAULT 13, SEL_BEYOND, call S(gate0):0
    GATE g_gate0, gate_target, SEL_USER_CODE32, 0xec00
    EXPECT_FAULT 13, SEL_USER_CODE32 & ~3, call S(gate0):0  ; outwards
    GATE g_gate0, gate_target, S(code_np), 0xec00
    EXPECT_FAULT 11, S(code_np), call S(gate0):0
    GATE g_gate0, gate_target, SEL_CODE32, 0xec00
    RING3_FAULT 13, SEL_CODE32, jmp S(gate0):0      ; JMP cannot change the ring
    ; the new stack: null, of the wrong ring, not present, outside of its limit
    GATE g_gate1, gate_target, S_CODE1, 0xec03
    mov dword [tss + 16], 0
    RING3_FAULT 10, 0, call S(gate1):0
    mov dword [tss + 16], SEL_DATA
    RING3_FAULT 10, SEL_DATA, call S(gate1):0
    mov dword [tss + 16], SEL_CODE32 + 1
    RING3_FAULT 10, SEL_CODE32, call S(gate1):0
    mov dword [tss + 16], SEL_BEYOND + 1
    RING3_FAULT 10, SEL_BEYOND, call S(gate1):0
    mov dword [tss + 16], S(data1_np) + 1
    RING3_FAULT 12, S(data1_np), call S(gate1):0
    mov dword [tss + 16], S(data1_small) + 1
    mov dword [tss + 12], 0x2000
    RING3_FAULT 12, S(data1_small), call S(gate1):0
    mov dword [tss + 12], ring1_top
    mov dword [tss + 16], S_DATA1
    ; a TSS too short for SS1
    mov word [g_tss], 15
    mov byte [g_tss + 5], 0x89
    mov ax, SEL_TSS
    ltr ax
    RING3_FAULT 10, SEL_TSS, call S(gate1):0
    mov word [g_tss], 0x67
    mov byte [g_tss + 5], 0x89
    mov ax, SEL_TSS
    ltr ax
    ; the offset beyond the code segment
    GATE g_gate0, 0x2000, S(code_small), 0xec00
    EXPECT_FAULT 13, 0, call S(gate0):0
    ret

; RETF to ring 3: ESP and SS popped, data segments that ring 3 may not hold become null, conforming ones stay
far_returns:
    EXPECT_BEGIN .after
    push dword SEL_USER_DATA
    push dword user_stack_top - 16
    push dword 0x99999999                           ; a parameter
    push dword SEL_USER_CODE32
    push dword .ring3
    mov ax, SEL_DATA
    mov ds, ax
    mov ax, SEL_USER_DATA
    mov es, ax
    mov ax, S(conforming)
    mov fs, ax
    mov ax, S_DATA2
    mov gs, ax
    retf 4
.ring3:
    mov edx, esp
    mov ebx, ds
    mov ecx, fs
    mov esi, gs
    mov edi, es
    int 0x30
.after:
    mov dword [resume], 0
    CHECK [seen_vector], 0x30
    CHECK edx, user_stack_top - 12                  ; the count comes off the new stack too
    CHECK ebx, 0
    CHECK ecx, S(conforming)
    CHECK esi, 0
    CHECK edi, SEL_USER_DATA
    mov esi, [seen_esp]
    CHECK [esi], user_stack_top - 12
    ; faults
%macro RETF_FAULT 4                     ; vector, error, cs, ss
    EXPECT_BEGIN %%after
    push dword %4
    push dword user_stack_top
    push dword %3
    push dword 0x1234
%%site:
    retf
%%after:
    EXPECT_END %1, %2, %%site
%endmacro
    RETF_FAULT 13, 0, 0, SEL_USER_DATA
    RETF_FAULT 13, SEL_DATA, SEL_DATA, SEL_USER_DATA
    RETF_FAULT 13, SEL_BEYOND, SEL_BEYOND + 3, SEL_USER_DATA
    RETF_FAULT 13, SEL_USER_CODE32 & ~3, SEL_USER_CODE32 & ~3, SEL_USER_DATA
    RETF_FAULT 13, 0, SEL_USER_CODE32, 0
    RETF_FAULT 13, SEL_DATA, SEL_USER_CODE32, SEL_DATA
    RETF_FAULT 13, SEL_USER_CODE32 & ~3, SEL_USER_CODE32, SEL_USER_CODE32
    RETF_FAULT 11, S(code_np), S(code_np), SEL_USER_DATA
    EXPECT_BEGIN .inward
    ENTER .ring3_inward, SEL_USER_CODE32, SEL_USER_DATA, user_stack_top
.ring3_inward:
    push dword SEL_CODE32
    push dword .ring3
.inward_site:
    retf
.inward:
    EXPECT_END 13, SEL_CODE32, .inward_site
    ret

; Conforming code of ring 0, called from ring 3: CPL stays 3
conforming:
    EXPECT_BEGIN .after
    ENTER .ring3, SEL_USER_CODE32, SEL_USER_DATA, user_stack_top
.ring3:
    call S(conforming):.inside
    mov ecx, cs
    int 0x30
.inside:
    mov ebx, cs
    mov edx, esp
    retf
.after:
    mov dword [resume], 0
    CHECK [seen_vector], 0x30
    CHECK ebx, S(conforming) + 3
    CHECK ecx, SEL_USER_CODE32
    CHECK edx, user_stack_top - 8
    ; privileged instructions fault in it
    EXPECT_BEGIN .cli
    ENTER .ring3_cli, SEL_USER_CODE32, SEL_USER_DATA, user_stack_top
.ring3_cli:
    jmp S(conforming):.cli_site
.cli_site:
    cli
.cli:
    EXPECT_END 13, 0, .cli_site
    CHECK [seen_cs], S(conforming) + 3
    ; conforming code of ring 3 cannot be called from ring 0
    EXPECT_FAULT 13, S(conforming3), jmp S(conforming3):0
    ret

; LAR, LSL, VERR, VERW: what ring 0 and ring 3 see
%macro LAR_IS 2                         ; selector, access rights or -1
    mov ecx, 0x5a5a5a5a
    mov eax, %1
    lar ecx, eax
%if %2 = -1
    CHECK_ZF 0
    CHECK ecx, 0x5a5a5a5a
%else
    CHECK_ZF 1
    and ecx, 0xf0ff00                   ; the limit's nibble is undefined
    CHECK ecx, %2
%endif
%endmacro
%macro LSL_IS 2
    mov ecx, 0x5a5a5a5a
    mov eax, %1
    lsl ecx, eax
    setz al
    movzx eax, al
    mov ebx, %2
    cmp eax, 1
    je %%valid
    CHECK ecx, 0x5a5a5a5a
    mov ecx, -2
%%valid:
    CHECK ecx, ebx
%endmacro
%macro VERIFY 3                         ; selector, readable, writable
    mov ecx, %1
    verr cx
    CHECK_ZF %2
    mov ecx, %1
    verw cx
    CHECK_ZF %3
%endmacro
%define NOT_VALID -2
queries:
    LAR_IS SEL_DATA, 0xc09300
    LAR_IS S(code_small), 0x409a00
    LAR_IS S(conforming), 0xc09f00
    LAR_IS SEL_USER_DATA, 0xc0f300
    LAR_IS S(data1_np), 0xc03200
    LAR_IS SEL_TSS, 0x008b00
    LAR_IS S(gate16), 0x00e400
    LAR_IS S(ldt), 0x008200
    LAR_IS S(task), 0x008500
    LAR_IS 0, -1
    LAR_IS 3, -1
    LAR_IS SEL_BEYOND, -1
    LAR_IS S(int_gate), -1              ; interrupt gates cannot be there
    LAR_IS S(reserved), -1
    LAR_IS SEL_DATA + 3, -1             ; RPL above DPL
    LAR_IS S(conforming) + 3, 0xc09f00  ; which conforming code does not mind
    mov ecx, -1
    mov eax, SEL_DATA
    lar cx, ax                          ; 16 bits
    CHECK ecx, 0xffff9300
    LSL_IS SEL_DATA, 0xffffffff
    LSL_IS S(code_small), 0xfff
    LSL_IS S(data1_small), 0xfff
    LSL_IS SEL_TSS, 0x67
    LSL_IS S(ldt), 15
    LSL_IS S(pages), 0x00012fff         ; pages: the low 12 bits are ones
    LSL_IS S(data1_np), 0xffffffff
    LSL_IS S(gate16), NOT_VALID
    LSL_IS S(task), NOT_VALID
    LSL_IS S(reserved), NOT_VALID
    LSL_IS SEL_BEYOND, NOT_VALID
    LSL_IS 0, NOT_VALID
    LSL_IS SEL_DATA + 3, NOT_VALID
    mov ecx, -1
    mov eax, S(pages)
    lsl cx, ax
    CHECK ecx, 0xffff2fff
    VERIFY SEL_DATA, 1, 1
    VERIFY SEL_CODE32, 1, 0
    VERIFY S(code_xo), 0, 0
    VERIFY S(data_ro), 1, 0
    VERIFY S(conforming) + 3, 1, 0
    VERIFY SEL_USER_DATA, 1, 1
    VERIFY SEL_DATA + 3, 0, 0
    VERIFY SEL_TSS, 0, 0
    VERIFY S(gate16), 0, 0
    VERIFY 0, 0, 0
    VERIFY SEL_BEYOND, 0, 0
    ; other flags stay
    stc
    mov eax, SEL_DATA
    lar ecx, eax
    setc al
    movzx eax, al
    CHECK eax, 1
    ; ring 3 sees its own
    RING3 .ring3
    CHECK ebx, 0x0110
    jmp .real_mode
.ring3:
    xor ebx, ebx
    mov ecx, SEL_DATA
    verr cx
    setz bl                             ; 0
    shl ebx, 4
    mov ecx, SEL_USER_DATA
    verw cx
    setz al
    or bl, al                           ; 1
    shl ebx, 4
    mov ecx, S(conforming)
    lar edx, ecx
    setz al
    or bl, al                           ; 1
    shl ebx, 4
    mov ecx, SEL_CODE32
    lsl edx, ecx
    setz al
    or bl, al                           ; 0
    int 0x30
.real_mode:
    ret

arpl_and_ldt:
    mov eax, 0x10
    mov ebx, 0x23
    arpl ax, bx
    pushfd
    CHECK eax, 0x13
    popfd
    CHECK_ZF 1
    mov eax, 0x12
    mov ebx, 0x21
    arpl ax, bx
    pushfd
    CHECK eax, 0x12
    popfd
    CHECK_ZF 0
    ; LLDT and what it gives
    mov eax, ldt
    mov [g_ldt + 2], ax
    shr eax, 16
    mov [g_ldt + 4], al
    mov [g_ldt + 7], ah
    mov ax, S(ldt)
    lldt ax
    sldt ecx
    CHECK ecx, S(ldt)
    mov dword [0x600], 0x13572468
    mov ax, 4                           ; index 0 of the LDT is a descriptor like any other
    mov fs, ax
    mov eax, [fs:0]
    CHECK eax, 0x13572468
    mov ax, 12
    EXPECT_FAULT 11, 12, mov fs, ax
    mov ax, 20
    EXPECT_FAULT 13, 20, mov fs, ax
    mov ax, SEL_DATA
    EXPECT_FAULT 13, SEL_DATA, lldt ax
    mov ax, 4
    EXPECT_FAULT 13, 4, lldt ax
    EXPECT_FAULT 13, 4, ltr ax
    mov dword [g_ldt + 4], 0x00000200
    mov ax, S(ldt)
    EXPECT_FAULT 11, S(ldt), lldt ax
    xor eax, eax
    lldt ax
    sldt ecx
    CHECK ecx, 0
    ret

table_registers:
    mov dword [scratch], -1
    mov dword [scratch + 4], -1
    sgdt [scratch]
    CHECK [scratch + 2], gdt_seg
    mov ax, [scratch]
    and eax, 0xffff
    CHECK eax, gdt_seg_end - gdt_seg - 1
    mov ax, [scratch + 6]
    CHECK eax, 0xffff
    o16 sidt [scratch]                  ; all 32 bits of the base, operand size or not
    CHECK [scratch + 2], idt
    mov ax, [scratch]
    CHECK eax, 256 * 8 - 1
    ; a 16-bit LGDT takes 24 bits of the base
    mov dword [scratch], 0
    mov word [scratch], gdt_seg_end - gdt_seg - 1
    mov dword [scratch + 2], gdt_seg + 0xff000000
    o16 lgdt [scratch]
    sgdt [scratch]
    CHECK [scratch + 2], gdt_seg
    ; SMSW and STR: registers take the operand size, memory 16 bits
    mov eax, cr0
    smsw ecx
    CHECK ecx, eax
    mov ecx, -1
    smsw cx
    or eax, 0xffff0000
    CHECK ecx, eax
    mov dword [scratch], -1
    smsw [scratch]
    CHECK [scratch], eax
    mov ecx, -1
    str ecx
    CHECK ecx, SEL_TSS
    mov ecx, -1
    str cx
    CHECK ecx, 0xffff0000 | SEL_TSS
    mov dword [scratch], -1
    str [scratch]
    CHECK [scratch], 0xffff0000 | SEL_TSS
    ; ring 3 may look
    RING3 .ring3
    CHECK ecx, SEL_TSS
    ret
.ring3:
    sgdt [scratch]
    sidt [scratch]
    smsw eax
    sldt edx
    str ecx
    int 0x30

umip:
    mov eax, 7
    xor ecx, ecx
    cpuid
    bt ecx, 2
    jnc .none
    mov eax, cr4
    bts eax, 11
    mov cr4, eax
    RING3_FAULT 13, 0, sgdt [scratch]
    RING3_FAULT 13, 0, sidt [scratch]
    RING3_FAULT 13, 0, sldt ecx
    RING3_FAULT 13, 0, smsw ecx
    RING3_FAULT 13, 0, str ecx
    RING3_FAULT 13, 0, str [scratch]
    sgdt [scratch]                      ; ring 0 is not concerned
    str ecx
    mov eax, cr4
    btr eax, 11
    mov cr4, eax
.none:
    ret

lmsw_cannot_leave:
    mov ebx, cr0
    mov eax, 0xfff0
    lmsw ax                             ; PE stays, MP, EM and TS go
    mov eax, cr0
    mov ecx, ebx
    and ecx, ~0xe
    CHECK eax, ecx
    mov eax, 0xe
    lmsw ax                             ; and come
    mov eax, cr0
    or ecx, 0xe
    CHECK eax, ecx
    clts
    mov eax, cr0
    and ecx, ~8
    CHECK eax, ecx
    mov cr0, ebx
    ret

section .data
align 8
gdt_seg:
    dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00009a000000ffff, 0x000092000000ffff, 0x00af9a000000ffff
    dq 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affa000000ffff
g_tss: dq 0x0000890000000067
    dq 0
    dq 0x00cf12000000ffff
g_code1: dq 0x00cfba000000ffff
g_data1: dq 0x00cfb2000000ffff
g_code2: dq 0x00cfda000000ffff
g_data2: dq 0x00cfd2000000ffff
g_gate0: dq 0
g_gate1: dq 0
g_gate2: dq 0
g_gate16: dq 0
g_code16: dq 0x00009a008000ffff         ; base 0x8000
g_code_np: dq 0x00cf1a000000ffff        ; not present
g_code_small: dq 0x00409a0000000fff
g_code_xo: dq 0x00cf98000000ffff
g_conforming: dq 0x00cf9f000000ffff
g_conforming3: dq 0x00cffe000000ffff
g_data1_np: dq 0x00cf32000000ffff
g_data1_small: dq 0x0040b20000000fff
g_data_ro: dq 0x00cf90000000ffff
g_pages: dq 0x00c0920000000012
g_ldt: dq 0x000082000000000f
g_task: dq 0x0000850000480000
g_int_gate: dq 0x00008e0000080000
g_reserved: dq 0x0000880000080000
gdt_seg_end:
gdt_seg_pointer:
    dw gdt_seg_end - gdt_seg - 1
    dd gdt_seg
align 8
ldt:
    dq 0x0040920006000fff               ; base 0x600
    dq 0x0040120006000fff               ; not present
in_cs: dd 0
in_ss: dd 0
in_esp: dd 0
in_frame: times 7 dd 0
scratch: times 4 dd 0
section .bss
alignb 16
resb 2048
ring1_top:
resb 2048
ring2_top:
section .text
