// Every REP, by length class, distance and direction.
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "cliffs.h"

static char *from, *to;
static long length;

#define STRING(name, before, text)                                                                 \
  static void name(long n) {                                                                       \
    while (n-- > 0) {                                                                              \
      char *si = from, *di = to;                                                                   \
      long cx = length;                                                                            \
      asm volatile(before text "\ncld" : "+S"(si), "+D"(di), "+c"(cx) : "a"(1L) : "memory", "cc"); \
    }                                                                                              \
  }

STRING(movsb, "", "rep movsb")
STRING(movsw, "", "rep movsw")
STRING(movsq, "", "rep movsq")
STRING(stosb, "", "rep stosb")
STRING(stosq, "", "rep stosq")
STRING(cmpsb, "", "repe cmpsb")
STRING(cmpsq, "", "repe cmpsq")
STRING(scasb, "", "repe scasb")
STRING(scasb_ne, "", "repne scasb")
STRING(scasw, "", "repe scasw")
STRING(movsb_back, "std\n", "rep movsb")
STRING(movsq_back, "std\n", "rep movsq")
STRING(stosb_back, "std\n", "rep stosb")

#define SINGLE(name, text)                                               \
  static void name(long n) {                                             \
    while (n-- > 0) {                                                    \
      char *si = from, *di = to;                                         \
      asm volatile(text : "+S"(si), "+D"(di) : : "rax", "memory", "cc"); \
    }                                                                    \
  }
SINGLE(one_movsb, "movsb")
SINGLE(one_movsq, "movsq")
SINGLE(one_stosq, "stosq")
SINGLE(one_lodsb, "lodsb")
SINGLE(one_cmpsb, "cmpsb")
SINGLE(one_scasb, "scasb")

static void lodsb(long n) {
  while (n-- > 0) {
    char* si = from;
    long cx = length;
    asm volatile("rep lodsb" : "+S"(si), "+c"(cx) : : "rax", "memory", "cc");
  }
}

void strings(void) {
  static const struct {
    const char* name;
    Loop loop;
    int size;
    char fill;
    int back;
  } rows[] = {
      {"movsb", movsb, 1, 1, 0},           {"movsw", movsw, 2, 1, 0},          {"movsq", movsq, 8, 1, 0},
      {"stosb", stosb, 1, 1, 0},           {"stosq", stosq, 8, 1, 0},          {"lodsb", lodsb, 1, 1, 0},
      {"cmpsb", cmpsb, 1, 1, 0},           {"cmpsq", cmpsq, 8, 1, 0},          {"scasb", scasb, 1, 1, 0},
      {"scasw", scasw, 2, 0, 0},           {"scasb-ne", scasb_ne, 1, 2, 0},    {"movsb-back", movsb_back, 1, 1, 1},
      {"movsq-back", movsq_back, 8, 1, 1}, {"stosb-back", stosb_back, 1, 1, 1}};
  static const int lengths[] = {0, 1, 7, 16, 64, 300, 2048, 20000};
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    memset(buffer, rows[i].fill, 8 << 20);
    if (rows[i].loop == scasw)
      for (int w = 0; w < 1 << 16; w++) ((uint16_t*)(buffer + (2 << 20)))[w] = 1;
    for (unsigned l = 0; l < sizeof lengths / sizeof *lengths; l++) {
      length = lengths[l] / rows[i].size;
      if (lengths[l] && !length) continue;
      from = buffer + 64, to = buffer + (2 << 20) + 2 * page;
      if (rows[i].back) from += lengths[l], to += lengths[l];
      measure_f("rep", rows[i].loop, 1, "%s-%d", rows[i].name, lengths[l]);
    }
  }
  static const struct {
    const char* name;
    Loop loop;
  } singles[] = {{"movsb", one_movsb}, {"movsq", one_movsq}, {"stosq", one_stosq},
                 {"lodsb", one_lodsb}, {"cmpsb", one_cmpsb}, {"scasb", one_scasb}};
  for (unsigned i = 0; i < sizeof singles / sizeof *singles; i++)
    measure_f("rep", singles[i].loop, 1, "without-%s", singles[i].name);

  memset(buffer, 1, 8 << 20);
  length = 2048;
  static const int near[] = {1, 2, 8, 64, 100};
  for (unsigned i = 0; i < sizeof near / sizeof *near; i++) {
    from = buffer, to = buffer + near[i];
    measure_f("rep", movsb, 1, "movsb-2048-up-%d", near[i]);
    from = buffer + near[i], to = buffer;
    measure_f("rep", movsb, 1, "movsb-2048-down-%d", near[i]);
  }
  from = buffer + page - 1000, to = buffer + 9 * page - 500;
  measure("rep", "movsb-2048-over-pages", movsb, 1);
  const uintptr_t base = (uintptr_t)1 << 45;
  char* first = get_memory_at(base, 2 * page, PROT_READ | PROT_WRITE);
  if (!first) return leave_out("rep", "distances", "the address space is in use");
  memset(first, 1, 2 * page);
  for (int shift = 20; shift <= 42; shift += 2) {
    char* second = get_memory_at(base + ((uintptr_t)1 << shift), 2 * page, PROT_READ | PROT_WRITE);
    if (!second) continue;
    memset(second, 1, 2 * page);
    from = first, to = second;
    measure_f("rep", movsb, 1, "movsb-2048-distance-2^%d", shift);
    measure_f("rep", cmpsb, 1, "cmpsb-2048-distance-2^%d", shift);
  }
  munmap(first, 2 * page);
}
