// Sockets between guest and host: vsock PORT_OF_HOST PORT_OF_GUEST COUNT. Connects COUNT times to the host, at once, and has
// what it sends sent back; then answers COUNT connections of the host's, at once, with what they send.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

enum { kBytes = 1000000 };

static struct sockaddr_vm address(unsigned cid, unsigned port) {
  return (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
}

static int send_all(int fd, const char* at, size_t left) {
  while (left > 0) {
    const ssize_t n = write(fd, at, left);
    if (n <= 0) return -1;
    at += n, left -= (size_t)n;
  }
  return 0;
}

// One process sends, another one receives: neither waits for the other.
static int ask(unsigned port, unsigned seed) {
  static char sent[kBytes], back[kBytes];
  const int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
  const struct sockaddr_vm host = address(VMADDR_CID_HOST, port);
  if (connect(fd, (const struct sockaddr*)&host, sizeof host) != 0) return perror("guest-test: connect"), 1;
  for (size_t i = 0; i < kBytes; i++) sent[i] = (char)((i ^ seed) * 31 >> 3);
  if (fork() == 0) _exit(send_all(fd, sent, kBytes) != 0 || shutdown(fd, SHUT_WR) != 0);
  size_t got = 0;
  for (ssize_t n; got < kBytes && (n = read(fd, back + got, kBytes - got)) > 0;) got += (size_t)n;
  int status = 0;
  wait(&status);
  char more;
  const ssize_t end = read(fd, &more, 1);
  const int wrong = status != 0 || got != kBytes || memcmp(sent, back, kBytes) != 0 || end != 0;
  if (wrong) printf("guest-test: sender %d, received %zu, then %zd: %s\n", status, got, end, strerror(errno));
  return wrong;
}

static int echo(int fd) {
  char some[30000];
  for (ssize_t n; (n = read(fd, some, sizeof some)) > 0;)
    if (send_all(fd, some, (size_t)n) != 0) return 1;
  return 0;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int count = atoi(argv[3]);
  int wrong = 0, status = 0;
  const int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
  const struct sockaddr_vm here = address(VMADDR_CID_ANY, (unsigned)atoi(argv[2]));
  if (bind(listener, (const struct sockaddr*)&here, sizeof here) != 0 || listen(listener, 32) != 0)
    return perror("guest-test: listen"), 1;
  for (int i = 0; i < count; i++)
    if (fork() == 0) exit(ask((unsigned)atoi(argv[1]), (unsigned)i));
  while (wait(&status) > 0) wrong += status != 0;
  printf("guest-test: to the host %d, %d wrong\n", count, wrong);
  const struct sockaddr_vm nobody = address(VMADDR_CID_HOST, 9);
  const int refused = socket(AF_VSOCK, SOCK_STREAM, 0);
  printf("guest-test: nobody there: %s\n",
         connect(refused, (const struct sockaddr*)&nobody, sizeof nobody) == 0 ? "?" : strerror(errno));
  printf("guest-test: listening\n");
  fflush(stdout);
  for (int i = 0; i < count; i++) {
    const int fd = accept(listener, NULL, NULL);
    if (fork() == 0) _exit(fd < 0 || echo(fd));
    close(fd);
  }
  for (wrong = 0; wait(&status) > 0;) wrong += status != 0;
  printf("guest-test: of the host's %d, %d wrong\n", count, wrong);
  return 0;
}
