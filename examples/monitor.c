// A virtual machine monitor by the book: it runs a kernel in ring 3, as this process's own code, and emulates what
// traps. `monitor KERNEL` shows what becomes of critical instructions, which do not; with KERNEL.patches beside it they
// have been made to. Not a sandbox for strangers: the kernel shares this process, which may do nothing but write, take
// signals and exit.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { kInterrupts = 1 << 9, kTimerVector = 32, kMostPatches = 64, kStackBytes = 65536 };

struct patch {
  uint64_t address, length;
  uint8_t bytes[16];
};
static struct patch patches[kMostPatches];
static unsigned patch_count;

// The virtual machine, beside what is in the registers: what a kernel believes of its own CPU and timer.
static struct {
  int interrupts_on, timer_runs;
  uint16_t idt_limit;
  uint64_t idt_base;
} vm;

static void end(const char* why) {
  if (write(2, why, strlen(why)) < 0) _exit(3);
  _exit(1);
}

static uint64_t pop(greg_t* r) {
  const uint64_t value = *(uint64_t*)r[REG_RSP];
  r[REG_RSP] += 8;
  return value;
}
static void push(greg_t* r, uint64_t value) {
  r[REG_RSP] -= 8;
  *(uint64_t*)r[REG_RSP] = value;
}

// The flags as the kernel would see them.
static uint64_t virtual_flags(const greg_t* r) {
  return ((uint64_t)r[REG_EFL] & ~(uint64_t)kInterrupts) | (vm.interrupts_on ? kInterrupts : 0);
}
static void set_virtual_flags(greg_t* r, uint64_t flags) {
  const uint64_t arithmetic = 0xcd5;
  r[REG_EFL] = (greg_t)(((uint64_t)r[REG_EFL] & ~arithmetic) | (flags & arithmetic));
  vm.interrupts_on = (flags & kInterrupts) != 0;
}

// An interrupt as the CPU delivers it (SDM vol. 3A 6.14). The selectors are the host's: an IRET that nobody emulates
// must be able to load them.
static void interrupt(greg_t* r, unsigned vector) {
  const uint8_t* gate = (const uint8_t*)vm.idt_base + vector * 16;
  const uint64_t rsp = (uint64_t)r[REG_RSP];
  uint64_t selectors = (uint64_t)r[REG_CSGSFS];
  r[REG_RSP] &= ~15ll;
  push(r, selectors >> 48);
  push(r, rsp);
  push(r, virtual_flags(r));
  push(r, selectors & 0xffff);
  push(r, (uint64_t)r[REG_RIP]);
  r[REG_RIP] = (greg_t)(gate[0] | gate[1] << 8 | (uint64_t)gate[6] << 16 | (uint64_t)gate[7] << 24 |
                        (uint64_t)(*(const uint32_t*)(gate + 8)) << 32);
  vm.interrupts_on = 0;
}

static void out(uint16_t port, uint8_t value) {
  switch (port) {
    case 0x3f8:
      if (write(1, &value, 1) != 1) _exit(3);
      break;
    case 0xf4:
      _exit(value << 1 | 1);
    case 0x40:
      vm.timer_runs = 1;
      break;
    default:  // the 8259s: there is nothing else to interrupt
      break;
  }
}

static void halt(greg_t* r) {
  if (!vm.interrupts_on) end("monitor: the kernel halted with interrupts off: nothing will wake it\n");
  if (!vm.timer_runs) end("monitor: the kernel halted without a timer: nothing will wake it\n");
  interrupt(r, kTimerVector);
}

static void store_idt(greg_t* r) {
  memcpy((void*)r[REG_RAX], &vm.idt_limit, 2);
  memcpy((void*)(r[REG_RAX] + 2), &vm.idt_base, 8);
}
static void load_idt(greg_t* r) {
  memcpy(&vm.idt_limit, (void*)r[REG_RAX], 2);
  memcpy(&vm.idt_base, (void*)(r[REG_RAX] + 2), 8);
}

static void return_from_interrupt(greg_t* r) {
  const uint64_t rip = pop(r);
  (void)pop(r);  // CS: this process has one
  const uint64_t flags = pop(r), rsp = pop(r);
  set_virtual_flags(r, flags);
  r[REG_RSP] = (greg_t)rsp, r[REG_RIP] = (greg_t)rip;
}

// The instruction of these bytes, of the kernel's: what it would have done in ring 0. `next`: behind it.
static void emulate(const uint8_t* code, greg_t* r, uint64_t next) {
  r[REG_RIP] = (greg_t)next;
  if (code[0] == 0xfa)
    vm.interrupts_on = 0;  // CLI
  else if (code[0] == 0xfb)
    vm.interrupts_on = 1;  // STI
  else if (code[0] == 0xf4)
    halt(r);  // HLT
  else if (code[0] == 0xee)
    out((uint16_t)r[REG_RDX], (uint8_t)r[REG_RAX]);  // OUT DX, AL
  else if (!memcmp(code, "\x0f\x01\x18", 3))
    load_idt(r);  // LIDT (RAX)
  else if (!memcmp(code, "\x0f\x01\x08", 3))
    store_idt(r);  // SIDT (RAX): critical
  else if (code[0] == 0x9c)
    push(r, virtual_flags(r));  // PUSHF: critical
  else if (code[0] == 0x9d)
    set_virtual_flags(r, pop(r));  // POPF: critical
  else if (!memcmp(code, "\x48\xcf", 2))
    return_from_interrupt(r);  // IRETQ: critical
  else if (!memcmp(code, "\x8c\xc8", 2))
    r[REG_RAX] = 8;  // MOV EAX, CS: critical
  else
    end("monitor: an instruction that this small monitor does not know\n");
}

// How long is one that traps by itself?
static unsigned length_of(const uint8_t* code) { return code[0] == 0x0f ? 3 : 1; }

static void trapped(int signal, siginfo_t* info, void* context) {
  (void)info;
  greg_t* r = ((ucontext_t*)context)->uc_mcontext.gregs;
  uint64_t at = (uint64_t)r[REG_RIP];
  if (signal != SIGTRAP) return emulate((const uint8_t*)at, r, at + length_of((const uint8_t*)at));
  at--;  // behind INT3
  for (unsigned i = 0; i < patch_count; i++)
    if (patches[i].address == at) return emulate(patches[i].bytes, r, at + patches[i].length);
  end("monitor: a trap that no patch made\n");
}

static uint64_t load(const char* path) {
  static uint8_t file[1 << 20];
  const int fd = open(path, O_RDONLY);
  const ssize_t length = fd < 0 ? -1 : read(fd, file, sizeof file);
  const Elf64_Ehdr* head = (const Elf64_Ehdr*)file;
  if (length < (ssize_t)sizeof *head || memcmp(head->e_ident, ELFMAG, SELFMAG)) {
    fprintf(stderr, "monitor: %s: %s\n", path, length < 0 ? strerror(errno) : "no kernel of these examples");
    exit(3);
  }
  const Elf64_Phdr* segment = (const Elf64_Phdr*)(file + head->e_phoff);
  void* const there = (void*)(segment->p_vaddr & ~4095ull);
  if (mmap(there, segment->p_memsz + 8192, PROT_READ | PROT_WRITE | PROT_EXEC,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != there) {
    perror("monitor: the kernel's addresses");
    exit(3);
  }
  memcpy((void*)segment->p_vaddr, file + segment->p_offset, segment->p_filesz);
  char name[4096];
  snprintf(name, sizeof name, "%s.patches", path);
  const int list = open(name, O_RDONLY);
  if (list >= 0) {
    const ssize_t bytes = read(list, patches, sizeof patches);
    patch_count = bytes > 0 ? (unsigned)bytes / sizeof patches[0] : 0;
  }
  return head->e_entry;
}

// Nothing but write, the return from a signal, and the end.
static void lock_down(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof code[0], code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) _exit(3);
}

static void run(uint64_t entry) {
  static uint8_t own_stack[kStackBytes], kernel_stack[kStackBytes] __attribute__((aligned(16)));
  const stack_t alternate = {.ss_sp = own_stack, .ss_size = sizeof own_stack};
  sigaltstack(&alternate, NULL);
  struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  for (const int* s = (const int[]){SIGSEGV, SIGILL, SIGTRAP, 0}; *s; s++) sigaction(*s, &action, NULL);
  alarm(5);  // a kernel that has gone wrong may loop
  lock_down();
  __asm__ volatile("mov %0, %%rsp; call *%1; hlt" ::"r"(kernel_stack + kStackBytes), "r"(entry) : "memory");
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "monitor KERNEL: runs it in ring 3\n");
    return 2;
  }
  const uint64_t entry = load(argv[1]);
  const pid_t child = fork();
  if (child == 0) run(entry);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  fprintf(stderr, "monitor: the kernel ended by signal %d\n", WTERMSIG(status));
  return 128 + WTERMSIG(status);
}
