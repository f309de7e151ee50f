; Hardware task switches: far JMP, far CALL with IRET back, task gate in the IDT, 16-bit TSS, busy and back-link handling, T bit, faults.
%include "common.inc"

%macro FILL_TSS 3                       ; tss, entry, stack
    mov dword [%1 + 0x1c], 0            ; CR3 (no paging)
    mov dword [%1 + 0x20], %2
    mov dword [%1 + 0x24], 2
    mov dword [%1 + 0x28], 0xa1a1a1a1
    mov dword [%1 + 0x38], %3
    mov dword [%1 + 0x48], SEL_DATA
    mov dword [%1 + 0x4c], SEL_CODE32
    mov dword [%1 + 0x50], SEL_DATA
    mov dword [%1 + 0x54], SEL_DATA
    mov dword [%1 + 0x58], SEL_DATA
    mov dword [%1 + 0x5c], SEL_DATA
    mov dword [%1 + 0x60], 0
    mov word [%1 + 0x64], 0
    mov word [%1 + 0x66], 104
%endmacro
%macro TSS_DESCRIPTOR 3                 ; slot label, tss, access byte
    mov eax, %2
    mov word [%1], 103
    mov [%1 + 2], ax
    shr eax, 16
    mov [%1 + 4], al
    mov byte [%1 + 5], %3
    mov byte [%1 + 6], 0
    mov [%1 + 7], ah
%endmacro

main:
    FILL_TSS tss_a, task_a, stack_a
    TSS_DESCRIPTOR gdt_test, tss_a, 0x89
    ; JMP: our TSS keeps our state and is no longer busy, the new one is
    mov ebx, 0xb0b0b0b0
    mov [saved_esp], esp
    jmp SEL_TEST:0
    ; back from task A by JMP
    CHECK ebx, 0xb0b0b0b0
    CHECK [count_a], 1
    mov al, [gdt_test + 5]
    and eax, 0xff
    CHECK eax, 0x89                     ; task A is available again
    mov al, [gdt_tss + 5]
    and eax, 0xff
    CHECK eax, 0x8b
    mov eax, cr0
    and eax, 8
    CHECK eax, 8                        ; TS is set by a switch
    clts

    ; CALL: back-link and NT in the new task; IRET comes back
    FILL_TSS tss_a, task_nested, stack_a
    mov ebx, 0xcafe0001
    call SEL_TEST:0
    CHECK ebx, 0xcafe0001
    CHECK [count_nested], 1
    CHECK [nested_flags], 0x4002        ; NT
    mov eax, [tss_a]
    and eax, 0xffff
    CHECK eax, SEL_TSS                  ; the back-link
    mov al, [gdt_test + 5]
    and eax, 0xff
    CHECK eax, 0x89
    pushfd
    pop eax
    and eax, 0x4000
    CHECK eax, 0
    ; a second CALL resumes after its IRET
    call SEL_TEST:0
    CHECK [count_nested], 2

    ; a task gate for #UD: no error code; IRET returns to the faulting task
    FILL_TSS tss_b, task_ud, stack_b
    TSS_DESCRIPTOR gdt_test + 8, tss_b, 0x89
    mov word [idt + 6 * 8 + 2], SEL_TEST2
    mov byte [idt + 6 * 8 + 5], 0x85
    mov edi, .ud_skip
    mov [ud_resume], edi
    ud2
    FAIL_HERE
.ud_skip:
    CHECK [count_ud], 1
    mov eax, [saved_ud_eip]
    CHECK eax, .ud_skip - 5 - 2         ; the fault's EIP was that of UD2 (CALL fail is 5 bytes)

    ; through a task gate in the GDT
    FILL_TSS tss_a, task_nested, stack_a
    mov dword [gdt_test + 16], SEL_TEST << 16
    mov dword [gdt_test + 20], 0x8500
    call SEL_TEST3:0
    CHECK [count_nested], 3

    ; faults before the switch
    EXPECT_FAULT 13, SEL_TSS, jmp SEL_TSS:0         ; busy
    mov byte [gdt_test + 5], 0x09                   ; not present
    EXPECT_FAULT 11, SEL_TEST, jmp SEL_TEST:0
    TSS_DESCRIPTOR gdt_test, tss_a, 0x89
    mov word [gdt_test], 102                        ; too short
    EXPECT_FAULT 10, SEL_TEST, jmp SEL_TEST:0
    mov word [gdt_test], 103
    ; faults in the new task: its EIP, its segments
    FILL_TSS tss_a, 0x1234, stack_a
    mov dword [tss_a + 0x54], SEL_NOT_PRESENT       ; DS
    EXPECT_BEGIN .new_ds
    jmp SEL_TEST:0
.new_ds:
    mov dword [resume], 0
    CHECK [seen_vector], 11
    CHECK [seen_error], SEL_NOT_PRESENT
    CHECK [seen_ip], 0x1234
    str ax
    and eax, 0xffff
    CHECK eax, SEL_TEST                             ; the switch had been done
    ; go home: TSS of the main task is available now
    mov dword [tss + 0x20], .home
    mov dword [tss + 0x38], esp
    jmp SEL_TSS:0
.home:
    ; T bit: #DB in the new task with BT, before its first instruction
    FILL_TSS tss_a, task_t, stack_a
    mov word [tss_a + 0x64], 1
    TSS_DESCRIPTOR gdt_test, tss_a, 0x89
    xor eax, eax
    mov dr6, eax
    EXPECT_BEGIN .t_bit
    jmp SEL_TEST:0
.t_bit:
    mov dword [resume], 0
    CHECK [seen_vector], 1
    CHECK [seen_ip], task_t
    mov eax, dr6
    and eax, 0xe00f
    CHECK eax, 0x8000
    mov dword [tss + 0x20], .home2
    mov dword [tss + 0x38], esp
    jmp SEL_TSS:0
.home2:
    ; a 16-bit TSS: 16-bit registers, upper halves as the manual says
    mov eax, task16_code
    sub eax, 0x100000
    mov [tss16 + 14], ax
    mov word [tss16 + 16], 2
    mov word [tss16 + 26], 0x7000
    mov word [tss16 + 18], 0x1616
    mov word [tss16 + 34], SEL_DATA
    mov word [tss16 + 36], SEL_TEST4
    mov word [tss16 + 38], SEL_DATA
    mov word [tss16 + 40], SEL_DATA
    mov word [tss16 + 42], 0
    ; its code segment: base 0x100000 region so that a 16-bit IP reaches it
    mov dword [gdt_test + 24], 0x0000ffff
    mov dword [gdt_test + 28], 0x00cf9a10           ; base 0x100000, 32-bit code
    TSS_DESCRIPTOR gdt_test, tss16, 0x81
    mov word [gdt_test], 43
    call SEL_TEST:0
    CHECK [count_16], 0x1616
    ret

task_a:
    inc dword [count_a]
    CHECK eax, 0xa1a1a1a1
    jmp SEL_TSS:0
    FAIL_HERE

task_nested:
    pushfd
    pop dword [nested_flags]
.again:
    inc dword [count_nested]
    iretd
    jmp .again

task_ud:
    inc dword [count_ud]
    mov eax, [tss + 0x20]
    mov [saved_ud_eip], eax
    mov eax, [ud_resume]
    mov [tss + 0x20], eax
    iretd
    FAIL_HERE

task_t:
    FAIL_HERE


task16_code:
    and eax, 0xffff
    mov [count_16], eax
    iretd

section .data
align 4
count_a: dd 0
count_nested: dd 0
count_ud: dd 0
count_16: dd 0
nested_flags: dd 0
ud_resume: dd 0
saved_ud_eip: dd 0
section .bss
alignb 4096
tss_a: resb 256
tss_b: resb 256
tss16: resb 64
resb 1024
stack_a:
resb 1024
stack_b:
section .text
