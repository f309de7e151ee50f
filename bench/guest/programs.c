// Real programs of Debian's, with inputs that are made here, the same ones everywhere. Paths are those of the guest's
// tree (bench/programs.py).
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define DATA "/tmp/bench/"

const Program programs[] = {
    {"gzip", {"/usr/bin/gzip", "-6", "-n", "-c", DATA "text-short"}, 0, 0},
    {"xz", {"/usr/bin/xz", "-2", "-T1", "-c", DATA "text-short"}, 0, 0},
    {"sort", {"/usr/bin/sort", "--parallel=1", "-k2", DATA "text"}, 0, 0},
    {"openssl",
     {"/usr/bin/openssl", "dgst", "-sha256", DATA "random", DATA "random", DATA "random", DATA "random", DATA "random",
      DATA "random", DATA "random", DATA "random", DATA "random", DATA "random"},
     0,
     0},
    {"sqlite", {"/usr/bin/sqlite3", "-batch", ":memory:"}, "/bench/work.sql", 0},
    {"perl", {"/usr/bin/perl", "/bench/work.pl"}, 0, 0},
    {"python", {"/usr/bin/python3.11", "-ISB", "/bench/work.py"}, 0, 0},
    {"gcc",
     {"/usr/bin/x86_64-linux-gnu-gcc-12", "-O2", "-fpreprocessed", "-c", "/bench/compile.c", "-o", DATA "compile.o"},
     0,
     DATA "compile.o"},
    {"shell", {"/bin/busybox", "sh", "/bench/work.sh"}, 0, 0},
    {0},
};

static FILE* create(const char* directory, const char* name) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE* file = fopen(path, "w");
  if (!file) fail("cannot create an input file");
  return file;
}

// Lines of words whose frequencies fall off as in a language.
static void make_text(FILE* file, unsigned lines) {
  static char words[512][12];
  uint64_t seed = 17;
  for (unsigned i = 0; i < 512; i++) {
    unsigned length = 2 + next_random(&seed) % 8;
    for (unsigned k = 0; k < length; k++) words[i][k] = (char)('a' + next_random(&seed) % 26);
    words[i][length] = 0;
  }
  for (unsigned i = 0; i < lines; i++) {
    for (unsigned k = 0; k < 8; k++) {
      uint64_t r = next_random(&seed);
      unsigned rank = (unsigned)((r & 511) * (r >> 9 & 511) * (r >> 18 & 511) >> 18);
      fputs(words[rank], file);
      fputc(k == 7 ? '\n' : ' ', file);
    }
  }
}

void make_inputs(const char* directory, double scale) {
  FILE* file = create(directory, "text");
  make_text(file, (unsigned)(40000 * scale) + 10);
  fclose(file);
  file = create(directory, "text-short");
  make_text(file, (unsigned)(6000 * scale) + 10);
  fclose(file);
  file = create(directory, "random");
  uint64_t seed = 23;
  for (unsigned i = 0; i < (unsigned)(500000 * scale) + 10; i++) {
    uint64_t r = next_random(&seed);
    fwrite(&r, 1, sizeof r, file);
  }
  fclose(file);
}

_Noreturn void exec_program(const Program* program, const char* directory) {
  char path[512];
  snprintf(path, sizeof path, "%s/out", directory);
  int in = open(program->input ? program->input : "/tmp/bench/empty", O_RDONLY | (program->input ? 0 : O_CREAT), 0600);
  int out = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
  snprintf(path, sizeof path, "%s/errors", directory);
  int errors = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
  if (in < 0 || out < 0 || errors < 0) _exit(126);
  dup2(in, 0);
  dup2(out, 1);
  dup2(errors, 2);
  char* environment[] = {"PATH=/usr/bin:/bin", "LC_ALL=C", "HOME=/tmp", "TMPDIR=/tmp/bench", "PYTHONHASHSEED=0",
                         "PERL_HASH_SEED=0",   0};
  execve(program->argv[0], (char* const*)program->argv, environment);
  _exit(127);
}
