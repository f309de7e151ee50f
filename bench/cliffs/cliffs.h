// Small loops in varied places, each timed alone. A row is a loop that does `n` operations of one sort; the harness
// ranks the rows by how much slower they are in a guest than on the machine itself.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { page = 4096, page_2m = 2 << 20 };

typedef void (*Loop)(long n);

// Times `loop` and reports it on the console: CLIFF KIND CASE NANOSECONDS, per operation. `per_turn`: operations that
// one unit of `n` stands for.
void measure(const char* kind, const char* name, Loop loop, double per_turn);
// The same with a name like printf's.
void measure_f(const char* kind, Loop loop, double per_turn, const char* format, ...)
    __attribute__((format(printf, 4, 5)));
// This row cannot be had here.
void leave_out(const char* kind, const char* name, const char* why);

// Zeroed memory, at a multiple of 2 MiB. Ends the program when there is none.
char* get_memory(size_t bytes, int protection);
// The same at this address; null if that is not to be had.
char* get_memory_at(uintptr_t address, size_t bytes, int protection);
// Code between two labels, copied to `to`.
Loop put_code(char* to, const char* from, const char* end);

// Does it run at all here, without a signal?
int works(Loop loop);

extern char* arena;   // 4 MiB that can be written and executed
extern char* buffer;  // 8 MiB of data, touched

void places(void);        // where code and data lie
void strings(void);       // REP
void instructions(void);  // one after the other
void calls(void);         // depths, targets
void far_branches(void);  // and 32-bit code
void changes(void);       // code that changes, code beside data
void kernel(void);        // mappings, faults, signals, system calls
