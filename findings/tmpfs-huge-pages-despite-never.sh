#!/bin/sh
# Shared memory has huge pages for whoever may make a user namespace, though shmem_enabled says "never".
#
# /sys/kernel/mm/transparent_hugepage/shmem_enabled ("never" as Linux comes) rules memfd_create(), shared anonymous memory
# and System V segments: all of them are files of one mount in the kernel. A tmpfs that is mounted has a huge= option of
# its own, which takes no privilege beyond that to mount it, and a user namespace gives that to anybody. Only "deny" forbids
# it. So the same mapping, touched byte by byte, is 4 KiB pages through a memfd and 2 MiB pages through a file of such a
# tmpfs. fstat() tells the two apart: st_blksize is that of a huge page.
#
# Seen on Linux 6.18 (x86-64), as root and as an ordinary user, with shmem_enabled "never": memfd 0 KiB in huge pages, tmpfs
# all 64 MiB. Needs gcc and user namespaces. Prints two lines; ends with 1 when this kernel does otherwise, 77 when it
# cannot be seen here.
set -eu
read -r modes </sys/kernel/mm/transparent_hugepage/shmem_enabled || exit 77
case $modes in *"[never]"*) ;; *) echo "shmem_enabled is not never here: $modes" && exit 77 ;; esac
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/huge.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HUGE = 2 << 20, BYTES = 64 << 20 };

static void put(const char *file, const char *text) {
  int fd = open(file, O_WRONLY);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) perror(file);
  if (fd >= 0) close(fd);
}

static long in_huge_pages(int fd, long *block) {
  struct stat st;
  fstat(fd, &st);
  *block = st.st_blksize;
  if (ftruncate(fd, BYTES)) return -1;
  char *all = mmap(0, BYTES + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  char *at = (char *)(((uintptr_t)all + HUGE - 1) & -(uintptr_t)HUGE);
  if (mmap(at, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) return -1;
  for (long i = 0; i < BYTES; i += 4096) at[i] = 1;
  char line[256], head[32];
  snprintf(head, sizeof head, "%lx-", (long)at);
  FILE *maps = fopen("/proc/self/smaps", "r");
  long kib = 0;
  for (int here = 0; fgets(line, sizeof line, maps);) {
    if (strchr(line, '-') && strchr(line, '-') < strchr(line, ' ')) here = !strncmp(line, head, strlen(head));
    if (here) sscanf(line, "ShmemPmdMapped: %ld kB", &kib);
  }
  fclose(maps);
  return kib;
}

int main(void) {
  long block, kib = in_huge_pages(memfd_create("memory", 0), &block);
  printf("memfd: st_blksize %ld, %ld of %d KiB in huge pages\n", block, kib, BYTES / 1024);
  if (kib != 0) return 1;
  char map[64];
  unsigned user = geteuid(), group = getegid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) return perror("unshare"), 77;
  put("/proc/self/setgroups", "deny");
  snprintf(map, sizeof map, "%u %u 1", user, user), put("/proc/self/uid_map", map);
  snprintf(map, sizeof map, "%u %u 1", group, group), put("/proc/self/gid_map", map);
  if (mount("mine", "/tmp", "tmpfs", 0, "huge=always")) return perror("mount"), 1;
  kib = in_huge_pages(open("/tmp/memory", O_CREAT | O_RDWR, 0600), &block);
  printf("tmpfs of one's own: st_blksize %ld, %ld of %d KiB in huge pages\n", block, kib, BYTES / 1024);
  return kib < BYTES / 1024 / 2;
}
C
gcc -O1 -o "$dir/huge" "$dir/huge.c"
"$dir/huge"
