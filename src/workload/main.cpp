// The init of the guest that `trapline compare` boots when it is given none: it runs the parts of the workload, says
// after each one what came of it, and powers the machine off. The host takes the time, by when a line comes: a guest's
// own clock is part of what is compared.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workload/parts.h"

using namespace trapline;

namespace {

struct Part {
  const char* name;
  u64 (*run)();
};

constexpr Part kParts[] = {
    {"compute", workload::part_compute},   {"calls", workload::part_calls},     {"faults", workload::part_faults},
    {"mappings", workload::part_mappings}, {"fork", workload::part_fork},       {"exec", workload::part_exec},
    {"switch", workload::part_switch},     {"signals", workload::part_signals}, {"files", workload::part_files},
    {"sleep", workload::part_sleep},
};

void say(const char* text) {
  const std::size_t length = ::strlen(text);
  if (::write(1, text, length) != static_cast<ssize_t>(length)) ::_exit(1);
}

void open_console() {
  ::mkdir("/dev", 0755);
  ::mount("dev", "/dev", "devtmpfs", 0, nullptr);  // the kernel may have done it
  const int fd = ::open("/dev/console", O_RDWR);
  if (fd < 0) return;
  for (int standard = 0; standard < 3; standard++) ::dup2(fd, standard);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && ::strcmp(argv[1], workload::kChild) == 0) return 7;
  if (::getpid() != 1) return 2;  // not for anybody else
  open_console();
  say("workload: begin\n");
  for (const Part& part : kParts) {
    const u64 number = part.run();
    char line[80];
    ::snprintf(line, sizeof line, "workload: %s %016llx\n", part.name, static_cast<unsigned long long>(number));
    say(line);
  }
  say("workload: end\n");
  ::sync();
  ::reboot(RB_POWER_OFF);
  ::_exit(1);
}
