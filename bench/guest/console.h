// Where the runner's lines go: the serial port itself in a guest, standard output elsewhere.
#pragma once

void console_open(int in_guest);
// One line, on the wire when this returns.
void console_line(const char* format, ...) __attribute__((format(printf, 1, 2)));
