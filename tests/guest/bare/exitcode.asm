; The debug-exit port with the value that the command line names: exit=N (decimal), as the last match. Without one: FAIL.
%include "common.inc"

main:
    CHECK [multiboot_magic], 0x2BADB002
    mov ebx, [multiboot_info]
    test dword [ebx], 4                 ; flags: a command line
    jnz .has_line
    FAIL_HERE
.has_line:
    mov esi, [ebx + 16]
    mov ebp, NONE
.scan:
    cmp byte [esi], 0
    je .end
    cmp dword [esi], "exit"
    jne .next
    cmp byte [esi + 4], "="
    jne .next
    add esi, 5
    xor ebp, ebp
.digit:
    movzx eax, byte [esi]
    sub eax, "0"
    cmp eax, 9
    ja .scan
    imul ebp, ebp, 10
    add ebp, eax
    inc esi
    jmp .digit
.next:
    inc esi
    jmp .scan
.end:
    cmp ebp, NONE
    jne .found
    FAIL_HERE
.found:
    mov eax, ebp
    out DEBUG_EXIT, eax
    FAIL_HERE
