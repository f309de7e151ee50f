; A boot sector that resets the machine by each of its ways, one a boot: what comes next is counted on the disk. By the
; reset control register, the keyboard controller, port 92, and a triple fault; then it ends the VM by isa-debug-exit.
        bits 16
        org 0x7c00

start:  jmp 0:.here
.here:  xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        cld
        mov [packet.drive], dl
        mov ah, 0x42            ; the counter's sector
        call disk
        mov al, [0x9000]
        add al, '0'
        mov [count], al
        mov si, text
.print: lodsb
        test al, al
        jz .said
        mov ah, 0x0e
        mov bx, 7
        int 0x10
        jmp .print
.said:  sti                     ; a serial console writes out what is pending at the timer's tick
        hlt
        hlt
        mov bl, [0x9000]
        inc byte [0x9000]
        mov ax, 0x4300
        call disk
        cmp bl, 0
        je .control
        cmp bl, 1
        je .keyboard
        cmp bl, 2
        je .port92
        cmp bl, 3
        je .triple
        mov al, 10              ; exit code 21
        mov dx, 0xf4
        out dx, al
        hlt
.control:
        mov dx, 0xcf9
        mov al, 2
        out dx, al
        mov al, 6
        out dx, al
        hlt
.keyboard:
        mov al, 0xfe
        out 0x64, al
        hlt
.port92:
        in al, 0x92
        and al, 0xfe
        out 0x92, al
        or al, 1
        out 0x92, al
        hlt
.triple:
        cli
        lidt [nothing]
        int3
        hlt

disk:   mov si, packet
        mov dl, [packet.drive]
        int 0x13
        jnc .done
        mov al, 1
        mov dx, 0xf4
        out dx, al
.done:  ret

packet: db 16, 0
        dw 1, 0x9000, 0
        dq 1
.drive: db 0
nothing: dw 0, 0, 0
text:   db "reset "
count:  db 0, 13, 10, 0
        times 510 - ($ - $$) db 0
        dw 0xaa55
        times 1024 * 1024 - ($ - $$) db 0
