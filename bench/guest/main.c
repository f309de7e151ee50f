// The runner: runs the named workloads one after the other and reports each on the console. It is a guest's /init,
// which finds what to run on the kernel's command line, and an ordinary program.
//
//   BENCH ready                     once, at the start
//   BENCH start NAME                then the workload runs
//   BENCH end NAME SECONDS          by this machine's own clock
//   BENCH sum NAME CHECKSUM         or: BENCH over NAME, BENCH skip NAME REASON, BENCH fail NAME REASON
//   BENCH done
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "console.h"

const char* scratch = "/tmp/bench";
const char* helpers = "/bench";

static const Workload* const tables[] = {cpu_workloads, memory_workloads, float_workloads, kernel_workloads, mixed_workloads,
                                         smp_workloads, port_workloads};
static const char* names = "";
static const char* tree;  // root directory of the programs; null: this machine's own root
static double scale = 1;
static unsigned limit = 600;

// Child to parent; `reason` counts if `what` is 'f'.
typedef struct {
  char what;  // r: ready, e: end, s: checksum, f: failed
  double seconds;
  uint64_t checksum;
  char reason[120];
} Report;

static int report_pipe = -1;

static void report(const Report* r) {
  if (write(report_pipe, r, sizeof *r) != sizeof *r) _exit(1);
}

_Noreturn void fail(const char* what) {
  Report r = {.what = 'f'};
  snprintf(r.reason, sizeof r.reason, "%s", what);
  if (report_pipe >= 0)
    report(&r);
  else
    console_line("BENCH error %s", what);
  _exit(1);
}

static int cpus_online(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }

static void pin(unsigned cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (unsigned i = 0; i < cpus; i++) CPU_SET(i, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0 && errno != EINVAL) fail("cannot pin to a CPU");
}

static uint64_t fold_file(const char* path, uint64_t sum) {
  static unsigned char bytes[1 << 16];
  int file = open(path, O_RDONLY);
  if (file < 0) fail("no output file");
  for (ssize_t n; (n = read(file, bytes, sizeof bytes)) > 0;) {
    for (ssize_t i = 0; i < n; i++) sum = (sum ^ bytes[i]) * 0x100000001b3u;
  }
  close(file);
  return sum;
}

static void enter_tree(void) {
  if (!tree) return;
  if (chroot(tree) != 0) {  // an ordinary user may in a user namespace
    if (unshare(CLONE_NEWUSER) != 0 || chroot(tree) != 0)
      fail("cannot chroot into the programs' tree: neither root nor user namespaces");
  }
  if (chdir("/") != 0) fail("chdir");
}

// The first line of what the program had to say, for the reason.
static void program_failed(int status) {
  char reason[100] = "", text[140];
  int file = open("/tmp/bench/errors", O_RDONLY);
  ssize_t n = file < 0 ? 0 : read(file, reason, sizeof reason - 1);
  reason[n > 0 ? n : 0] = 0;
  reason[strcspn(reason, "\n")] = 0;
  snprintf(text, sizeof text, "exit status 0x%x: %s", (unsigned)status, reason);
  fail(text);
}

static void run_program(const Program* program, int go) {
  const char* directory = "/tmp/bench";
  pin(1);
  enter_tree();
  Report r = {.what = 'r'};
  report(&r);
  char byte;
  if (read(go, &byte, 1) != 1) _exit(1);
  double before = now();
  pid_t child = fork();
  if (child == 0) exec_program(program, directory);
  int status = -1;
  if (child < 0 || waitpid(child, &status, 0) != child) fail("cannot start the program");
  r.seconds = now() - before;
  r.what = 'e';
  report(&r);
  if (status != 0) program_failed(status);
  r.checksum = fold_file("/tmp/bench/out", 0xcbf29ce484222325u);
  if (program->output) r.checksum = fold_file(program->output, r.checksum);
  r.what = 's';
  report(&r);
  _exit(0);
}

static int supported(const char* feature) {
  __builtin_cpu_init();
  if (strcmp(feature, "avx2") == 0) return __builtin_cpu_supports("avx2");
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static void run_workload(const Workload* w, int go) {
  pin(w->cpus);
  uint64_t n = strcmp(w->name, "idle") == 0 ? w->n : (uint64_t)((double)w->n * scale);
  if (n == 0) n = 1;
  Report r = {.what = 'r'};
  report(&r);
  char byte;
  if (read(go, &byte, 1) != 1) _exit(1);
  double before = now();
  r.checksum = w->run(n);
  r.seconds = now() - before;
  r.what = 'e';
  report(&r);
  r.what = 's';
  report(&r);
  _exit(0);
}

// Reads the child's reports until it is done or over the limit.
static void watch(const char* name, pid_t child, int reports, int go) {
  double deadline = now() + limit;
  for (;;) {
    double left = deadline - now();
    struct pollfd p = {.fd = reports, .events = POLLIN};
    int ready = left <= 0 ? 0 : poll(&p, 1, (int)(left * 1000) + 1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      kill(-child, SIGKILL);
      console_line("BENCH over %s", name);
      break;
    }
    Report r;
    ssize_t n = read(reports, &r, sizeof r);
    if (n != sizeof r) {
      console_line("BENCH fail %s its process died", name);
      break;
    }
    if (r.what == 'r') {
      console_line("BENCH start %s", name);
      deadline = now() + limit;
      if (write(go, "", 1) != 1) continue;
    } else if (r.what == 'e') {
      console_line("BENCH end %s %.9f", name, r.seconds);
    } else if (r.what == 's') {
      console_line("BENCH sum %s %016llx", name, (unsigned long long)r.checksum);
      break;
    } else {
      r.reason[sizeof r.reason - 1] = 0;
      console_line("BENCH fail %s %s", name, r.reason);
      break;
    }
  }
  kill(-child, SIGKILL);
  while (waitpid(-child, 0, 0) > 0 || errno == EINTR) {
  }
}

static void run(const char* name, const Workload* w, const Program* program) {
  if (w && w->cpus > (unsigned)cpus_online()) {
    console_line("BENCH skip %s needs %u CPUs", name, w->cpus);
    return;
  }
  if (w && w->cpu && !supported(w->cpu)) {
    console_line("BENCH skip %s the CPU has no %s", name, w->cpu);
    return;
  }
  int reports[2], go[2];
  if (pipe(reports) != 0 || pipe(go) != 0) fail("pipe");
  pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    setpgid(0, 0);
    iopl(0);  // or each switch to it would cost the I/O bitmap
    close(reports[0]);
    close(go[1]);
    report_pipe = reports[1];
    if (program) run_program(program, go[0]);
    run_workload(w, go[0]);
  }
  setpgid(child, child);
  close(reports[1]);
  close(go[0]);
  watch(name, child, reports[0], go[1]);
  close(reports[0]);
  close(go[1]);
}

static int run_named(const char* name) {
  for (unsigned t = 0; t < sizeof tables / sizeof tables[0]; t++) {
    for (const Workload* w = tables[t]; w->name; w++) {
      if (strcmp(w->name, name) == 0) return run(name, w, 0), 1;
    }
  }
  for (const Program* p = programs; p->name; p++) {
    if (strcmp(p->name, name) == 0) return run(name, 0, p), 1;
  }
  console_line("BENCH fail %s no such workload", name);
  return 0;
}

static void set_option(char* word) {
  char* value = strchr(word, '=');
  if (!value) return;
  *value++ = 0;
  if (strcmp(word, "trapline.bench") == 0)
    names = value;
  else if (strcmp(word, "trapline.scale") == 0)
    scale = atof(value);
  else if (strcmp(word, "trapline.limit") == 0)
    limit = (unsigned)atoi(value);
  else if (strcmp(word, "scratch") == 0)
    scratch = value;
  else if (strcmp(word, "helpers") == 0)
    helpers = value;
  else if (strcmp(word, "tree") == 0)
    tree = value;
}

static void start_guest(void) {
  static char line[4096];
  mount("proc", "/proc", "proc", 0, 0);
  mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
  mount("tmpfs", "/tmp", "tmpfs", 0, 0);
  int file = open("/proc/cmdline", O_RDONLY);
  ssize_t n = file < 0 ? 0 : read(file, line, sizeof line - 1);
  line[n > 0 ? n : 0] = 0;
  close(file);
  for (char *state, *word = strtok_r(line, " \n", &state); word; word = strtok_r(0, " \n", &state)) set_option(word);
}

int main(int argc, char** argv) {
  int in_guest = getpid() == 1;
  if (in_guest) start_guest();
  for (int i = 1; i < argc && !in_guest; i++) set_option(argv[i]);
  console_open(in_guest);
  signal(SIGPIPE, SIG_IGN);
  mkdir(scratch, 0700);
  console_line("BENCH ready");

  char* list = strdup(names);
  int have_inputs = 0, good = 1;
  for (char *state, *name = strtok_r(list, ",", &state); name; name = strtok_r(0, ",", &state)) {
    for (const Program* p = programs; p->name && !have_inputs; p++) {
      if (strcmp(p->name, name) != 0) continue;
      char path[512];
      snprintf(path, sizeof path, "%s/tmp/bench", tree ? tree : "");
      mkdir(path, 0700);
      make_inputs(path, scale);
      have_inputs = 1;
    }
    good &= run_named(name);
  }
  console_line("BENCH done");
  if (in_guest) {
    sync();
    reboot(RB_POWER_OFF);
  }
  return good ? 0 : 1;
}
