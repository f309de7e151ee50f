// Code that changes: modified by the thread that runs it, and by others (Intel SDM Vol. 3, 8.1.3).
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "litmus.h"

typedef uint32_t (*Function)(void);
enum { page = 4096, runners = 3 };

static uint8_t* code;   // executable
static uint8_t* alias;  // the same memory, writable
static uint64_t calls[max_threads], wrong[max_threads];
static int stop;

static void map_code(void) {
  int file = (int)syscall(SYS_memfd_create, "code", 0);
  if (file < 0 || ftruncate(file, page) != 0) broken("no memory for code");
  code = mmap(0, page, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, file, 0);
  alias = mmap(0, page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (code == MAP_FAILED || alias == MAP_FAILED) broken("no memory for code");
  memset(calls, 0, sizeof calls);
  memset(wrong, 0, sizeof wrong);
  stop = 0;
}

static void unmap_code(void) {
  munmap(code, page);
  munmap(alias, page);
}

static void serialize(void) {
  uint32_t a = 0, b, c = 0, d;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d)::"memory");
}

static void sums(const char* name) {
  uint64_t all = 0, bad = 0;
  for (unsigned i = 0; i < max_threads; i++) all += calls[i], bad += wrong[i];
  outcome(name, all, 0);
  outcome("wrong results", bad, 1);
}

// mov eax, imm32; ret
static void write_function(uint8_t* at, uint32_t value) {
  at[0] = 0xb8;
  memcpy(at + 1, &value, 4);
  at[5] = 0xc3;
}

// The thread itself changes the constant, through the address that it runs at, and calls.
static void own_body(unsigned thread) {
  while (time_left()) {
    for (unsigned n = 0; n < 500; n++) {
      uint32_t value = (uint32_t)random_number();
      write_function(code + 16 * (n % 8), value);
      wrong[thread] += ((Function)(code + 16 * (n % 8)))() != value;
      calls[thread]++;
    }
  }
}

static void own_code(double seconds) {
  (void)seconds;
  map_code();
  on_threads(1, own_body);
  sums("calls");
  unmap_code();
}

// The store changes the very next instruction: the processor notices, if the store's linear address is the one it runs
// at.
//   mov [rip+5], edi; mov eax, imm32; ret, where the store's target is the imm32
static void next_body(unsigned thread) {
  static const uint8_t bytes[] = {0x89, 0x3d, 1, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0xc3};
  memcpy(code + 64, bytes, sizeof bytes);
  while (time_left()) {
    for (unsigned n = 0; n < 500; n++) {
      uint32_t value = (uint32_t)random_number();
      wrong[thread] += ((uint32_t(*)(uint32_t))(code + 64))(value) != value;
      calls[thread]++;
    }
  }
}

static void next_instruction(double seconds) {
  (void)seconds;
  map_code();
  on_threads(1, next_body);
  sums("calls");
  unmap_code();
}

// Through another address: needs a serializing instruction.
static void alias_body(unsigned thread) {
  while (time_left()) {
    for (unsigned n = 0; n < 100; n++) {
      uint32_t value = (uint32_t)random_number();
      write_function(alias + 128, value);
      serialize();
      wrong[thread] += ((Function)(code + 128))() != value;
      calls[thread]++;
    }
  }
}

static void alias_code(double seconds) {
  (void)seconds;
  map_code();
  on_threads(1, alias_body);
  sums("calls");
  unmap_code();
}

// Cross-modification by the manual's protocol: the writer stores code, then a flag; the others wait for the flag,
// serialize, and run.
static uint32_t flag;

static void handshake_body(unsigned thread) {
  for (uint32_t generation = 1;; generation++) {
    if (thread == 0) {
      if (!time_left()) __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
      write_function(alias + 256, generation * 2654435761u);
      __atomic_store_n(&flag, generation, __ATOMIC_RELEASE);
    } else {
      for (unsigned spins = 0; __atomic_load_n(&flag, __ATOMIC_ACQUIRE) != generation; spins++)
        if (spins > 200 || cpus() <= runners) syscall(SYS_sched_yield);
    }
    serialize();
    wrong[thread] += ((Function)(code + 256))() != generation * 2654435761u;
    calls[thread]++;
    int last = __atomic_load_n(&stop, __ATOMIC_SEQ_CST);  // that of this generation
    meet(runners + 1);                                    // nobody runs the old code any more
    if (last) return;
  }
}

static void handshake(double seconds) {
  (void)seconds;
  map_code();
  flag = 0;
  on_threads(runners + 1, handshake_body);
  sums("calls");
  unmap_code();
}

// As kernels patch code that runs: a breakpoint on the first byte, the rest, the first byte, and after each step every
// CPU is made to serialize. A runner gets a published value that is not older than what was published when it called,
// or meets the breakpoint.
static uint32_t published, writing;

static void on_trap(int number, siginfo_t* info, void* context) {
  (void)number, (void)info;
  ucontext_t* u = context;
  u->uc_mcontext.gregs[REG_RAX] = UINT32_MAX;
  u->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)(code + 512 + 5);  // its RET
}

static void all_serialize(void) {
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) != 0) broken("membarrier");
}

static void patch_once(uint32_t value) {
  __atomic_store_n(&writing, value, __ATOMIC_SEQ_CST);
  PLAIN_STORE(alias[512], 0xcc);
  all_serialize();
  memcpy(alias + 513, &value, 4);
  all_serialize();
  PLAIN_STORE(alias[512], 0xb8);
  all_serialize();
  __atomic_store_n(&published, value, __ATOMIC_SEQ_CST);
}

static void breakpoint_body(unsigned thread) {
  if (thread == 0) {
    for (uint32_t value = 1; time_left(); value++) patch_once(value);
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    return;
  }
  while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
    uint32_t before = __atomic_load_n(&published, __ATOMIC_SEQ_CST);
    uint32_t value = ((Function)(code + 512))();
    uint32_t after = __atomic_load_n(&writing, __ATOMIC_SEQ_CST);
    if (value != UINT32_MAX && (value < before || value > after)) wrong[thread]++;
    calls[thread]++;
  }
}

static void breakpoints(double seconds) {
  (void)seconds;
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) != 0)
    return skip("no membarrier");
  struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
  sigaction(SIGTRAP, &action, 0);
  map_code();
  write_function(alias + 512, 0);
  published = writing = 0;
  on_threads(runners + 1, breakpoint_body);
  outcome("patches", published, 0);
  sums("calls");
  unmap_code();
}

// A translator's own life: new code, published by its address, and its memory used again after everyone has serialized.
// Behind each function lies its number, written once the code is there for all. A runner that was held up finds a newer
// function in the place, never an older one.
static uint8_t* newest;

static void publish_body(unsigned thread) {
  if (thread == 0) {
    for (uint32_t n = 1; time_left(); n++) {
      uint8_t* at = alias + 1024 + n % 8 * 64;
      __atomic_store_n(&writing, n, __ATOMIC_SEQ_CST);
      write_function(at, n);
      all_serialize();
      PLAIN_STORE(*(uint32_t*)(at + 8), n);
      __atomic_store_n(&newest, code + (at - alias), __ATOMIC_RELEASE);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    return;
  }
  while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
    uint8_t* at = __atomic_load_n(&newest, __ATOMIC_ACQUIRE);
    if (!at) {
      syscall(SYS_sched_yield);
      continue;
    }
    uint32_t before = PLAIN_LOAD(*(uint32_t*)(at + 8));
    uint32_t value = ((Function)at)();
    uint32_t after = __atomic_load_n(&writing, __ATOMIC_SEQ_CST);
    if (value < before || value > after || value % 8 != before % 8) wrong[thread]++;
    calls[thread]++;
  }
}

static void publishing(double seconds) {
  (void)seconds;
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) != 0)
    return skip("no membarrier");
  map_code();
  newest = 0, writing = 0;
  on_threads(runners + 1, publish_body);
  sums("calls");
  unmap_code();
}

// A just-in-time compiler: it fills a page byte by byte, and runs from it in between.
static void compile_body(unsigned thread) {
  enum { functions = 64, first = 16 };
  uint8_t* const base = code;
  for (uint32_t n = 1; time_left(); n++) {
    for (uint32_t k = first; k < functions; k++) {
      uint32_t value = n * 2654435761u + k;
      uint8_t bytes[6] = {0xb8, (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24),
                          0xc3};
      for (unsigned i = 0; i < sizeof bytes; i++) PLAIN_STORE(base[k * 64 + i], bytes[i]);
      if (k % 16 == 0) wrong[thread] += ((Function)(code + k * 64))() != value;
    }
    serialize();
    for (uint32_t k = first; k < functions; k++) wrong[thread] += ((Function)(code + k * 64))() != n * 2654435761u + k;
    calls[thread] += functions - first;
  }
}

static void compiler(double seconds) {
  (void)seconds;
  map_code();
  on_threads(1, compile_body);
  sums("calls");
  unmap_code();
}

// Read-only data in an executable mapping, where linkers put it with the text: what is there is read, even if it would be
// an instruction to whoever takes it for code. A process of its own each time: a program is looked at anew.
static void unexecuted_body(unsigned thread) {
  enum { size = 16 * page };
  static const uint8_t cpuid[] = {0x0f, 0xa2}, lsl[] = {0x48, 0x0f, 0x03, 0xc1}, xgetbv[] = {0x0f, 0x01, 0xd0};
  uint8_t* data = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint8_t* copy = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED || copy == MAP_FAILED) broken("no memory for data");
  memset(copy, 0x90, size);
  for (unsigned at = 200; at < size; at += 1000) {
    memcpy(copy + at, cpuid, sizeof cpuid);
    memcpy(copy + at + 50, lsl, sizeof lsl);
    memcpy(copy + at + 100, xgetbv, sizeof xgetbv);
  }
  memcpy(data, copy, size);
  if (mprotect(data, size, PROT_READ | PROT_EXEC) != 0) broken("no executable memory");
  while (time_left()) {
    pid_t child = fork();
    if (child < 0) broken("cannot fork");
    if (child == 0) {
      int differ = 0;
      for (unsigned n = 0; n < 5000; n++) {
        differ |= memcmp(data, copy, size);
        __asm__ volatile("" ::: "memory");
      }
      _exit(differ != 0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    wrong[thread] += status != 0;
    calls[thread]++;
  }
  munmap(data, size);
  munmap(copy, size);
}

static void unexecuted_data(double seconds) {
  (void)seconds;
  map_code();
  on_threads(1, unexecuted_body);
  sums("reads");
  unmap_code();
}

const Test code_tests[] = {
    {"own-code", own_code},   {"next-instruction", next_instruction}, {"aliased-code", alias_code},
    {"handshake", handshake}, {"breakpoint-patching", breakpoints},   {"published-code", publishing},
    {"compiler", compiler},   {"unexecuted-data", unexecuted_data},   {0}};
