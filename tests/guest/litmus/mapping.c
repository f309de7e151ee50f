// Mappings that change under running threads: after munmap or mprotect has returned, no CPU may use the old
// translation.
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "litmus.h"

enum { page = 4096, users = 3 };

// Each returns 0, or 1 if the access faulted; *value is what was read.
int touch_read(volatile uint8_t* at, uint8_t* value);
int touch_write(volatile uint8_t* at, uint8_t* value);
extern const char touch_begin[], touch_end[], touch_fault[];
__asm__(
    ".pushsection .text\n"
    "touch_begin:\n"
    "touch_read: movb (%rdi), %al\n movb %al, (%rsi)\n xorl %eax, %eax\n ret\n"
    "touch_write: movb $0x5a, (%rdi)\n xorl %eax, %eax\n ret\n"
    "touch_end:\n"
    "touch_fault: movl $1, %eax\n ret\n"
    ".popsection\n");

static void on_fault(int number, siginfo_t* info, void* context) {
  (void)info;
  ucontext_t* u = context;
  uintptr_t rip = (uintptr_t)u->uc_mcontext.gregs[REG_RIP];
  if (rip < (uintptr_t)touch_begin || rip >= (uintptr_t)touch_end) {
    signal(number, SIG_DFL);
    return;
  }
  u->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)touch_fault;
}

// `state`: even while the page is usable, odd while it is not, `changing` in between.
static const uint32_t changing = UINT32_MAX;
static uint32_t state;
static volatile uint8_t* target;
static uint64_t accesses[max_threads], faults[max_threads], late[max_threads], spurious[max_threads],
    stale[max_threads];
static int stop, (*touch)(volatile uint8_t*, uint8_t*);
static void (*take_away)(void);
static int contents;  // a file whose pages hold their number

static void user(unsigned thread) {
  while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
    uint8_t value = 0;
    uint32_t before = __atomic_load_n(&state, __ATOMIC_SEQ_CST);
    int faulted = touch(target, &value);
    uint32_t after = __atomic_load_n(&state, __ATOMIC_SEQ_CST);
    accesses[thread]++;
    faults[thread] += (uint64_t)faulted;
    if (before != after || before == changing) continue;
    if ((before & 1) && !faulted) late[thread]++;
    if (!(before & 1) && faulted) spurious[thread]++;
    if (!(before & 1) && !faulted && touch == touch_read && value != (before / 2 & 7)) stale[thread]++;
  }
}

static void give(uint32_t number) {
  void* p =
      mmap((void*)target, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, contents, (off_t)(number & 7) * page);
  if (p != target) broken("mmap");
}

// Long enough that the others use the page in this state, short enough for many changes.
static void linger(void) {
  for (uint64_t n = random_number() % 2000; n > 0; n--) __builtin_ia32_pause();
  if (cpus() < 2) syscall(SYS_sched_yield);
}

static void body(unsigned thread) {
  if (thread != 0) return user(thread);
  for (uint32_t n = 0; time_left(); n++) {
    give(n);
    __atomic_store_n(&state, 2 * n, __ATOMIC_SEQ_CST);
    linger();
    __atomic_store_n(&state, changing, __ATOMIC_SEQ_CST);
    take_away();
    __atomic_store_n(&state, 2 * n + 1, __ATOMIC_SEQ_CST);
    linger();
    __atomic_store_n(&state, changing, __ATOMIC_SEQ_CST);
  }
  __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
}

static void by_munmap(void) {
  // The hole must not be taken by others meanwhile: nobody else maps anything in this test.
  munmap((void*)target, page);
}
static void by_mprotect(void) { mprotect((void*)target, page, PROT_NONE); }
static void by_read_only(void) { mprotect((void*)target, page, PROT_READ); }

static uint64_t sum(const uint64_t* counts) {
  uint64_t all = 0;
  for (unsigned i = 0; i < max_threads; i++) all += counts[i];
  return all;
}

static void run(void (*how)(void), int (*access)(volatile uint8_t*, uint8_t*)) {
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, 0);
  sigaction(SIGBUS, &action, 0);
  contents = (int)syscall(SYS_memfd_create, "pages", 0);
  if (contents < 0 || ftruncate(contents, 8 * page) != 0) broken("memfd");
  for (uint8_t i = 0; i < 8; i++)
    if (pwrite(contents, &i, 1, i * page) != 1) broken("memfd");
  // Three pages, of which the middle one comes and goes.
  uint8_t* room = mmap(0, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) broken("mmap");
  target = room + page;
  state = changing, stop = 0, take_away = how, touch = access;
  for (unsigned i = 0; i < max_threads; i++) accesses[i] = faults[i] = late[i] = spurious[i] = stale[i] = 0;
  on_threads(users + 1, body);
  outcome("accesses", sum(accesses), 0);
  outcome("faults", sum(faults), 0);
  outcome("accesses through a mapping that is gone", sum(late), 1);
  outcome("faults on a mapping that is there", sum(spurious), 1);
  outcome("bytes of another page", sum(stale), 1);
  munmap(room, 3 * page);
  close(contents);
}

static void unmapping(double seconds) { (void)seconds, run(by_munmap, touch_read); }
static void protecting(double seconds) { (void)seconds, run(by_mprotect, touch_read); }
static void read_only(double seconds) { (void)seconds, run(by_read_only, touch_write); }

// Copy on write: once fork has returned, what the parent's threads write is not the child's.
enum { cow_pages = 16 };
static volatile uint64_t* cow;
static uint64_t children;

static void writer_or_forker(unsigned thread) {
  if (thread != 0) {
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
      for (unsigned p = 0; p < cow_pages; p++) cow[p * (page / 8) + thread]++;
      accesses[thread] += cow_pages;
    }
    return;
  }
  while (time_left()) {
    pid_t child = fork();
    if (child < 0) broken("fork");
    if (child == 0) {
      uint64_t first[cow_pages * 4];
      for (unsigned i = 0; i < cow_pages * 4; i++) first[i] = cow[i / 4 * (page / 8) + i % 4];
      for (unsigned n = 0; n < 300; n++) __builtin_ia32_pause();
      if (cpus() < 2) syscall(SYS_sched_yield);
      for (unsigned i = 0; i < cow_pages * 4; i++)
        if (first[i] != cow[i / 4 * (page / 8) + i % 4]) _exit(1);
      _exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child) broken("waitpid");
    if (status != 0) late[0]++;
    children++;
  }
  __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
}

static void copy_on_write(double seconds) {
  (void)seconds;
  cow = mmap(0, cow_pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (cow == MAP_FAILED) broken("mmap");
  stop = 0, children = 0, late[0] = 0;
  for (unsigned i = 0; i < max_threads; i++) accesses[i] = 0;
  on_threads(users + 1, writer_or_forker);
  outcome("children", children, 0);
  outcome("parents' writes", sum(accesses), 0);
  outcome("writes that reached a child", late[0], 1);
  munmap((void*)cow, cow_pages * page);
}

const Test mapping_tests[] = {
    {"munmap", unmapping}, {"mprotect", protecting}, {"read-only", read_only}, {"copy-on-write", copy_on_write}, {0}};
