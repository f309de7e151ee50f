// Reads functions from a disk, past the page cache, each over the one before, and calls them: a device writes over code
// that was executed a moment ago, and no instruction of the guest's touches the page.
//
// The disk has blocks of 4 KiB, the n-th with a function that returns n + 1.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kBlock = 4096, kBlocks = 64, kRounds = 3, kCalls = 60 };

int main(int argc, char** argv) {
  const int fd = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECT) : -1;
  void* page = mmap(NULL, kBlock, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (fd < 0 || page == MAP_FAILED) return 1;
  unsigned wrong = 0;
  for (int round = 0; round < kRounds; round++)
    for (int n = 0; n < kBlocks; n++) {
      if (pread(fd, page, kBlock, (off_t)n * kBlock) != kBlock) return 1;
      for (int call = 0; call < kCalls; call++) wrong += ((int (*)(void))page)() != n + 1;
    }
  printf("guest-test: functions from the disk, %u wrong\n", wrong);
  return 0;
}
