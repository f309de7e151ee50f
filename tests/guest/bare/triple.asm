; A triple fault on purpose, its registers marked: #UD whose gate is not present, the #NP whose gate is not, the #DF whose gate is not.
%include "common.inc"

main:
    ; first what must not be one: a #UD whose delivery fails is a double fault, taken and survived
    mov byte [idt + 6 * 8 + 5], 0x0e
    mov byte [idt + 11 * 8 + 5], 0x0e
    EXPECT_FAULT 8, 0, ud2
    SAY "double fault taken"
    mov byte [idt + 8 * 8 + 5], 0x0e
    mov eax, 0x7a11c0de
    mov edi, 0x600df00d
    ud2
    FAIL_HERE
