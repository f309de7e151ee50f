// Devices as drivers use them: ports that are read often, and serial output. Guests only: this machine's own ports are
// not to be touched. The checksums say what every PC answers, not how fast.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "bench.h"

static void take_ports(void) {
  if (iopl(3) != 0) fail("no access to ports");
}

// ACPI's FADT says where the timer is: offset 76, PM_TMR_BLK.
static uint16_t pm_timer_port(void) {
  mkdir("/tmp/sys", 0700);
  if (mount("sysfs", "/tmp/sys", "sysfs", 0, 0) != 0 && errno != EBUSY) fail("cannot mount sysfs");
  unsigned char fadt[80];
  int file = open("/tmp/sys/firmware/acpi/tables/FACP", O_RDONLY);
  if (file < 0 || read(file, fadt, sizeof fadt) != sizeof fadt) fail("no FADT");
  close(file);
  uint32_t port;
  memcpy(&port, fadt + 76, sizeof port);
  return (uint16_t)port;
}

static uint64_t pm_timer(uint64_t n) {
  take_ports();
  const uint16_t port = pm_timer_port();
  uint64_t good = 0;
  uint32_t last = inl(port);
  for (uint64_t i = 0; i < n; i++) {
    const uint32_t value = inl(port);
    good += ((value - last) & 0xffffff) < 0x800000;  // 24 bits count on every PC
    last = value;
  }
  return good;
}

// The count of counter 0, latched: a command and two bytes.
static uint64_t pit_read(uint64_t n) {
  take_ports();
  uint64_t good = 0;
  for (uint64_t i = 0; i < n; i++) {
    outb(0x00, 0x43);
    const unsigned low = inb(0x40), high = inb(0x40);
    good += (low | high << 8) <= 0xffff;
  }
  return good;
}

static uint64_t port61(uint64_t n) {
  take_ports();
  uint64_t good = 0;
  for (uint64_t i = 0; i < n; i++) good += (inb(0x61) & 0xc0) == 0;  // no parity error, no channel check
  return good;
}

// Register D: the battery is good.
static uint64_t rtc_read(uint64_t n) {
  take_ports();
  uint64_t good = 0;
  for (uint64_t i = 0; i < n; i++) {
    outb(0x0d, 0x70);
    good += inb(0x71) == 0x80;
  }
  return good;
}

// As a kernel's console does it: wait for the transmitter, send. Lines, so that whoever reads them has lines.
static uint64_t serial_poll(uint64_t n) {
  take_ports();
  for (uint64_t i = 0; i < n; i++) {
    while (!(inb(0x3fd) & 0x20)) {
    }
    outb(i % 64 == 63 ? '\n' : '.', 0x3f8);
  }
  outb('\n', 0x3f8);
  return n;
}

// Through the driver and its interrupts.
static uint64_t serial_tty(uint64_t n) {
  static const char line[] = "...............................................................\n";
  int tty = open("/dev/ttyS0", O_WRONLY | O_NOCTTY);
  if (tty < 0) fail("cannot open /dev/ttyS0");
  for (uint64_t left = n; left > 0;) {
    const size_t some = left < sizeof line - 1 ? (size_t)left : sizeof line - 1;
    const ssize_t written = write(tty, line, some);
    if (written <= 0) fail("cannot write to /dev/ttyS0");
    left -= (uint64_t)written;
  }
  if (write(tty, "\n", 1) != 1 || tcdrain(tty) != 0) fail("cannot drain /dev/ttyS0");
  close(tty);
  return n;
}

const Workload port_workloads[] = {
    {"pm-timer", pm_timer, 100000, 1, 0},
    {"pit-read", pit_read, 30000, 1, 0},
    {"port-61", port61, 100000, 1, 0},
    {"rtc-read", rtc_read, 50000, 1, 0},
    {"serial-poll", serial_poll, 40000, 1, 0},
    {"serial-tty", serial_tty, 40000, 1, 0},
    {0},
};
