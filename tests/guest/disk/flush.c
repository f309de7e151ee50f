// A program of the guest's that writes and flushes without end: flush DEVICE. The block of record n (flush.h) gets 4 KiB
// that hold n and nothing else; some records are written together, then flushed, and only then named: "flushed N" says
// that all records up to N are safe. tests/guest/disk_kill_test.cpp looks for them.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "flush.h"

int main(int argc, char** argv) {
  static uint64_t record[kRecordWords] __attribute__((aligned(4096)));
  const int plain = argc > 1 ? open(argv[1], O_RDWR) : -1, direct = argc > 1 ? open(argv[1], O_RDWR | O_DIRECT) : -1;
  if (plain < 0 || direct < 0) return perror("flush"), 1;
  setvbuf(stdout, NULL, _IOLBF, 256);
  for (uint64_t n = 1;;) {
    // Past the page cache and through it, one record and several.
    const int device = n & 64 ? plain : direct;
    for (uint64_t end = n + 1 + n % kMostTogether; n < end; n++) {
      for (unsigned i = 0; i < kRecordWords; i++) record[i] = n;
      if (pwrite(device, record, sizeof record, (off_t)(block_of(n) * sizeof record)) != sizeof record)
        return perror("flush: write"), 2;
    }
    if (fdatasync(device) != 0) return perror("flush: fdatasync"), 3;
    printf("flushed %llu\n", (unsigned long long)(n - 1));
  }
}
