; A boot sector that asks the BIOS for what every loader does: the console (INT 10), the disk by CHS and by LBA (INT 13),
; the memory map (INT 15 E820), the keyboard (INT 16), the clock (INT 1A). It prints "name ok" for each, reads a key,
; says which, and ends the VM by isa-debug-exit.
        bits 16
        org 0x7c00

SECTORS equ 4                   ; of this image, after the first

start:  jmp 0:.here
.here:  xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        mov [drive], dl
        cld
        mov si, hello
        call print
        mov ax, 0x0200 + SECTORS ; read by CHS: cylinder 0, head 0, sector 2 on
        mov bx, 0x7e00
        mov cx, 0x0002
        mov dh, 0
        mov dl, [drive]
        int 0x13
        mov si, chs
        jc fail
        cmp word [loaded], 0x1234
        jne fail
        call ok
        jmp more

; si: the name. Prints it, and " ok" or " failed".
ok:     call print
        mov si, yes
        jmp print
fail:   call print
        mov si, no
        call print
        mov al, 3
        mov dx, 0xf4
        out dx, al
        hlt

print:  lodsb
        test al, al
        jz .done
        mov ah, 0x0e
        mov bx, 7
        int 0x10
        jmp print
.done:  ret

drive:  db 0
hello:  db "boot sector", 13, 10, 0
yes:    db " ok", 13, 10, 0
no:     db " failed", 13, 10, 0
chs:    db "chs", 0
        times 510 - ($ - $$) db 0
        dw 0xaa55

loaded: dw 0x1234

more:   mov ah, 0x41            ; EDD: are there extensions?
        mov bx, 0x55aa
        mov dl, [drive]
        int 0x13
        mov si, edd
        jc fail
        cmp bx, 0xaa55
        jne fail
        call ok
        mov si, packet
        mov ah, 0x42
        mov dl, [drive]
        int 0x13
        mov si, lba
        jc fail
        cmp dword [0x9000], "last"
        jne fail
        call ok

        mov si, packet          ; and written, by the same packet one sector later
        inc dword [packet + 8]
        mov dword [0x9000], "made"
        mov ax, 0x4300
        mov dl, [drive]
        int 0x13
        mov si, write
        jc fail
        call ok

        xor ebx, ebx            ; E820: the RAM from 1 MiB on
        xor ebp, ebp
.next:  mov eax, 0xe820
        mov edx, 0x534d4150
        mov ecx, 20
        mov di, 0x9000
        int 0x15
        mov si, e820
        jc fail
        cmp eax, 0x534d4150
        jne fail
        cmp dword [0x9000], 0x100000
        jne .other
        cmp dword [0x9010], 1
        jne .other
        mov ebp, [0x9008]
.other: test ebx, ebx
        jnz .next
        cmp ebp, 0x2000000      ; 32 MiB at least
        jb fail
        call ok

        mov ah, 0               ; INT 1A: ticks, which go on
        int 0x1a
        mov bx, dx
        sti
.wait:  hlt
        mov ah, 0
        int 0x1a
        cmp bx, dx
        je .wait
        mov si, clock
        call ok

        mov si, ask
        call print
        mov ah, 0
        int 0x16
        mov [key], al
        mov si, got
        call print
        sti                     ; a serial console writes out what is pending at the timer's tick
        hlt
        hlt
        mov al, 8               ; exit code 17
        mov dx, 0xf4
        out dx, al
        hlt

packet: db 16, 0
        dw 1, 0x9000, 0
        dq SECTORS
edd:    db "edd", 0
lba:    db "lba", 0
write:  db "write", 0
e820:   db "e820", 0
clock:  db "clock", 0
ask:    db "press a key", 13, 10, 0
got:    db "key "
key:    db 0, 13, 10, 0
        times SECTORS * 512 - ($ - $$) db 0
        db "last"
        times (SECTORS + 2) * 512 - ($ - $$) db 0
        times 1024 * 1024 - ($ - $$) db 0
