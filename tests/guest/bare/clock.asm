; Time: the TSC never goes back; PIT, local APIC timer, RTC and ACPI PM timer (where the board has it at 0x608) agree with it within wide
; bounds, and nothing depends on how soon the host lets this guest run: delays only stretch what is measured, so the best of many short
; tries counts, and times have a lower bound alone; the PIT's counter reads, latch and read-back; RTC update and periodic interrupts; TSC writes.
%include "long.inc"

%define APIC 0xfee00000
%define PIT_HZ 1193182

%macro HANDLER 2                        ; vector, label
    mov rax, %2
    mov rdi, idt + %1 * 16
    mov [rdi], ax
    shr rax, 16
    mov [rdi + 6], ax
%endmacro
%macro READ_TSC 0                       ; RAX; RDX is lost
    lfence
    rdtsc
    shl rdx, 32
    or rax, rdx
%endmacro
%macro AWAIT 2                          ; counter, value: HLT with interrupts on
%%more:
    cli
    cmp dword [%1], %2
    jae %%done
    sti
    hlt
    jmp %%more
%%done:
%endmacro
; BETWEEN value, low, high (unsigned, 64-bit registers or constants)
%macro BETWEEN 3
    push rax
    push rbx
    mov rax, %1
    mov [seen64_value], rax
    mov rbx, %2
    cmp rax, rbx
    jb %%bad
    mov rbx, %3
    cmp rax, rbx
    jbe %%good
%%bad:
    call fail64
%%good:
    pop rbx
    pop rax
%endmacro
; RAX: TSC ticks that a second of interrupts took. Late and lost ones on a busy host stretch it without bound; a late first one
; shortens it.
%macro NO_LESS_THAN_A_SECOND 0
    mov r8, [ticks_per_second]
    shr r8, 2
    BETWEEN rax, r8, -1
%endmacro
%macro CMOS_READ 1
    mov al, %1
    out 0x70, al
    in al, 0x71
%endmacro
%macro CMOS_WRITE 2
    mov al, %1
    out 0x70, al
    mov al, %2
    out 0x71, al
%endmacro

main64:
    mov dword [pdpt + 3 * 8], pd_high + 7
    mov dword [pd_high + 503 * 8], 0xfee00000 + 0x93
    mov rax, cr3
    mov cr3, rax
    HANDLER 0x20, on_pit
    HANDLER 0x28, on_rtc
    HANDLER 0x40, on_apic
    HANDLER 0x27, on_spurious
    HANDLER 0x2f, on_spurious
    HANDLER 0xff, on_spurious
    STEP interrupt_controllers
    STEP tsc_monotonic
    STEP calibrate
    STEP pit_interrupts
    STEP pit_counter
    STEP apic_timer
    STEP pm_timer
    STEP rtc_periodic
    STEP rtc_update
    STEP tsc_write
    ret

interrupt_controllers:
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    mov edi, APIC
    mov dword [rdi + 0xf0], 0x1ff
    mov dword [rdi + 0x350], 0x700      ; LINT0: ExtINT
    mov dword [rdi + 0x80], 0
    ret

tsc_monotonic:
    READ_TSC
    mov rbx, rax
    mov ecx, 100000
.again:
    READ_TSC
    cmp rax, rbx
    jb .back
    mov rbx, rax
    loop .again
    ; RDTSCP is the same clock, TSC_AUX in ECX
    mov eax, 0x80000001
    cpuid
    bt edx, 27
    jnc .no_rdtscp
    mov ecx, 0xc0000103
    mov eax, 0x1234
    xor edx, edx
    wrmsr
    READ_TSC
    mov rbx, rax
    rdtscp
    shl rdx, 32
    or rax, rdx
    mov edx, ecx
    CHECK64 rdx, 0x1234
    cmp rax, rbx
    jb .back
.no_rdtscp:
    ret
.back:
    call fail64

; The TSC's frequency: 1 ms of PIT channel 2 in mode 0, polled, the shortest of 32 (a busy host delays, it never hurries)
calibrate:
    in al, 0x61
    and al, 0xfd                        ; speaker off, gate up
    or al, 1
    out 0x61, al
    mov r12, -1
    xor r13d, r13d                      ; tries that have seen OUT low
    mov ecx, 32
.again:
    mov al, 0xb0
    out 0x43, al
    mov al, (PIT_HZ / 1000) & 0xff
    out 0x42, al
    READ_TSC                            ; before the count begins: what comes in between stretches it, too
    mov rbx, rax
    mov al, (PIT_HZ / 1000) >> 8
    out 0x42, al
    in al, 0x61
    test al, 0x20                       ; OUT goes low with the count
    jnz .wait                           ; it was over before this guest ran again
    inc r13d
.wait:
    in al, 0x61
    test al, 0x20
    jz .wait
    READ_TSC
    sub rax, rbx
    cmp rax, r12
    cmovb r12, rax
    dec ecx
    jnz .again
    BETWEEN r13, 1, 32
    imul rax, r12, 1000
    mov [ticks_per_second], rax
    BETWEEN rax, 10000000, 20000000000
    ret

; 100 interrupts of 1 ms
pit_interrupts:
    mov al, 0x34
    out 0x43, al
    mov al, 0xa9
    out 0x40, al
    mov al, 0x04
    out 0x40, al
    mov al, 0xfe
    out 0x21, al
    mov dword [pit_count], 0
    AWAIT pit_count, 1
    READ_TSC
    mov rbx, rax
    AWAIT pit_count, 101
    READ_TSC
    sub rax, rbx
    imul rax, rax, 10
    NO_LESS_THAN_A_SECOND
    mov al, 0xff
    out 0x21, al
    cli
    ret

; mode 2's counter runs down from the reload value; the latch holds it; read-back tells the mode
pit_counter:
    mov al, 0x34
    out 0x43, al
    xor eax, eax                        ; 65536
    out 0x40, al
    out 0x40, al
    xor r12d, r12d                      ; distinct values seen
    mov r13d, -1
    mov ecx, 2000
.sample:
    mov al, 0x00
    out 0x43, al
    in al, 0x40
    mov bl, al
    in al, 0x40
    mov bh, al
    movzx ebx, bx
    cmp ebx, r13d
    je .same
    inc r12d
.same:
    mov r13d, ebx
    loop .sample
    BETWEEN r12, 10, 2000
    ; read-back: status and count of channel 0
    mov al, 0xc2
    out 0x43, al
    in al, 0x40
    and eax, 0x3f
    CHECK64 rax, 0x34
    in al, 0x40
    in al, 0x40
    ret

; RAX: counts per second, of the counter that the function at RBP reads into EAX (R13D masks it). The best of 32 tries: an
; interruption makes the rate look lower, nothing makes it look higher.
rate:
    mov r14d, 32
    xor r15d, r15d
.again:
    READ_TSC
    mov rbx, rax
    mov r8, [ticks_per_second]
    shr r8, 10                          ; 1 ms
    add r8, rbx
    call rbp
    mov r12d, eax
.spin:
    READ_TSC
    cmp rax, r8
    jb .spin
    call rbp
    sub eax, r12d
    and eax, r13d
    mov r9d, eax
    READ_TSC
    sub rax, rbx
    mov rcx, rax
    mov eax, r9d
    mul qword [ticks_per_second]
    div rcx
    cmp rax, r15
    cmova r15, rax
    dec r14d
    jnz .again
    mov rax, r15
    ret

apic_elapsed:
    mov eax, [rdi + 0x390]              ; RDI: the APIC
    not eax
    ret

; the APIC timer's rate against the TSC, then a periodic interrupt at 2 ms, 25 times
apic_timer:
    mov edi, APIC
    mov dword [rdi + 0x3e0], 0xb        ; divide by 1
    mov dword [rdi + 0x320], 0x10000
    mov dword [rdi + 0x380], -1
    mov rbp, apic_elapsed
    mov r13d, -1
    call rate
    BETWEEN rax, 1000000, 20000000000
    mov r10, rax
    ; the count stops at no value in between: later reads are lower
    mov ecx, 1000
    mov ebx, [rdi + 0x390]
.down:
    mov eax, [rdi + 0x390]
    cmp eax, ebx
    ja .up
    mov ebx, eax
    loop .down
    jmp .periodic
.up:
    call fail64
.periodic:
    mov rax, r10
    xor edx, edx
    mov ecx, 500
    div rcx
    mov dword [apic_count], 0
    mov dword [rdi + 0x320], 0x20040
    mov [rdi + 0x380], eax
    AWAIT apic_count, 1
    READ_TSC
    mov rbx, rax
    AWAIT apic_count, 26
    READ_TSC
    sub rax, rbx
    imul rax, rax, 20
    mov dword [rdi + 0x320], 0x10000
    mov dword [rdi + 0x380], 0
    NO_LESS_THAN_A_SECOND
    ; divide by 16 is sixteen times slower
    mov dword [rdi + 0x3e0], 3
    mov dword [rdi + 0x320], 0x10000
    mov dword [rdi + 0x380], -1
    call rate
    shl rax, 4
    mov r8, r10
    shr r8, 1
    lea r9, [r10 * 2]
    BETWEEN rax, r8, r9
    mov dword [rdi + 0x380], 0
    ret

; 3.579545 MHz, 24 or 32 bits; the board may have none there: then it reads as ones or does not move
pm_timer:
    mov dx, 0x608
    in eax, dx
    cmp eax, -1
    je .none
    mov rbp, .elapsed
    mov r13d, 0xffffff
    call rate
    test rax, rax
    jz .none
    BETWEEN rax, 3579545 / 2, 3579545 * 2
.none:
    ret
.elapsed:
    mov dx, 0x608
    in eax, dx
    ret

; IRQ 8 at 1024 Hz: 64 of them
rtc_periodic:
    CMOS_WRITE 0x0a, 0x26
    CMOS_READ 0x0b
    or al, 0x40
    mov bl, al
    CMOS_WRITE 0x0b, bl
    CMOS_READ 0x0c
    mov al, 0xfb                        ; the slave
    out 0x21, al
    mov al, 0xfe
    out 0xa1, al
    mov dword [rtc_count], 0
    AWAIT rtc_count, 1
    READ_TSC
    mov rbx, rax
    AWAIT rtc_count, 65
    READ_TSC
    sub rax, rbx
    shl rax, 4
    NO_LESS_THAN_A_SECOND
    movzx eax, byte [rtc_status]
    and eax, 0xc0
    CHECK64 rax, 0xc0                   ; IRQF and PF
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    cli
    CMOS_READ 0x0b
    and al, ~0x40
    mov bl, al
    CMOS_WRITE 0x0b, bl
    CMOS_READ 0x0c
    ret

; a second passes, from no later than one change of the seconds to the next
rtc_update:
    READ_TSC
    mov r15, rax
    CMOS_READ 0
    mov r12b, al
    call .next_second
    mov rbx, r15
    mov r12b, al
    call .next_second
    READ_TSC
    sub rax, rbx
    NO_LESS_THAN_A_SECOND
    ; the values are those of a clock: BCD or binary, whatever register B says
    CMOS_READ 0x0d
    and eax, 0x80
    CHECK64 rax, 0x80                   ; the battery is good
    ret
.next_second:                           ; AL: no longer R12B. R15: TSC before the last look that found it
    READ_TSC
    mov r14, rax
    CMOS_READ 0x0a
    test al, 0x80                       ; the seconds are about to change
    jnz .next_second
    CMOS_READ 0
    cmp al, r12b
    cmove r15, r14
    je .next_second
    ret

; the TSC may be set; TSC_ADJUST follows
tsc_write:
    mov ecx, 0x10
    xor eax, eax
    mov edx, 0x100
    wrmsr
    READ_TSC
    mov rbx, 0x10000000000
    mov r8, 0x11000000000
    BETWEEN rax, rbx, r8
    mov eax, 7
    xor ecx, ecx
    cpuid
    bt ebx, 1
    jnc .done
    mov ecx, 0x3b
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov r12, rax
    mov rbx, 1 << 44                    ; forwards by TSC_ADJUST
    add rax, rbx
    mov rdx, rax
    shr rdx, 32
    wrmsr
    READ_TSC
    mov rbx, (1 << 44) + 0x10000000000
    mov r8, (1 << 44) + 0x11000000000
    BETWEEN rax, rbx, r8
    mov ecx, 0x3b
    mov rax, r12
    mov rdx, rax
    shr rdx, 32
    wrmsr
    READ_TSC
    mov rbx, 0x10000000000
    mov r8, 0x11000000000
    BETWEEN rax, rbx, r8
.done:
    ret

on_pit:
    push rax
    inc dword [pit_count]
    mov al, 0x20
    out 0x20, al
    pop rax
    iretq
on_rtc:
    push rax
    inc dword [rtc_count]
    mov al, 0x0c
    out 0x70, al
    in al, 0x71
    mov [rtc_status], al
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
    pop rax
    iretq
on_apic:
    push rax
    inc dword [apic_count]
    mov eax, APIC
    mov dword [rax + 0xb0], 0
    pop rax
    iretq
on_spurious:
    iretq

section .data
align 8
ticks_per_second: dq 0
pit_count: dd 0
rtc_count: dd 0
apic_count: dd 0
rtc_status: db 0
section .bss
alignb 4096
pd_high: resb 4096
section .text
