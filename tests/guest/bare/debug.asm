; Debug exceptions: single step, instruction and data breakpoints, general detect, INT1; DR6 and restart addresses.
%include "common.inc"

main:
    ; -- single step and breakpoints --
    EXPECT_BEGIN .stepped
    push dword 0x102
    popfd
    nop
.step_ip:
    FAIL_HERE
.stepped:
    EXPECT_END 1, NONE, .step_ip
    mov eax, dr6
    and eax, 0xe00f
    CHECK eax, 0x4000
    xor eax, eax
    mov dr6, eax
    EXPECT_BEGIN .hit
    mov eax, .break_here
    mov dr0, eax
    mov eax, 0x401
    mov dr7, eax
    jmp .armed
.armed:
    nop
.break_here:
    nop
    FAIL_HERE
.hit:
    EXPECT_END 1, NONE, .break_here
    xor eax, eax
    mov dr7, eax
    mov eax, dr6
    and eax, 15
    CHECK eax, 1
    xor eax, eax
    mov dr6, eax
    EXPECT_BEGIN .watched
    mov eax, watched
    mov dr1, eax
    mov eax, 0x00d00404                            ; L1, write, 4 bytes
    mov dr7, eax
    mov eax, [watched]                             ; reading is not watched
    mov [watched + 2], al
.after_write:
    FAIL_HERE
.watched:
    EXPECT_END 1, NONE, .after_write
    mov eax, dr6
    and eax, 15
    CHECK eax, 2
    ; general detect
    xor eax, eax
    mov dr6, eax
    mov eax, 0x2400
    mov dr7, eax
    EXPECT_FAULT 1, NONE, mov eax, dr0
    mov eax, dr6
    and eax, 0x200f
    CHECK eax, 0x2000
    xor eax, eax
    mov dr6, eax
    mov dr7, eax
    EXPECT_TRAP 1, db 0xf1
    ret
section .data
align 4                                 ; the CPU ignores the low bits of a breakpoint of more than a byte
watched: dd 0
section .text
