"""The workloads by group, and the bars of each group. A ratio is QEMU TCG's time divided by Trapline's."""
import dataclasses

INTEGER = ["alu", "divide", "branches", "calls", "dispatch", "sort-array", "hash", "chase", "copy", "strings"]
FLOAT = ["matrix-sse", "matrix-avx2", "matrix-fma", "nbody", "x87"]
KERNEL = ["getppid", "read-write", "pipe", "fork", "exec-static", "exec-dynamic", "mmap", "signals", "futex", "small-files"]
MIXED = ["calls-1k", "calls-10k", "calls-100k", "calls-1m", "touch", "jit"]
PROGRAMS = ["gzip", "xz", "sort", "openssl", "sqlite", "perl", "python", "gcc", "shell"]
SMP = ["smp-one", "smp-two", "smp-spin", "smp-counter", "smp-wake"]
PORTS = ["pm-timer", "pit-read", "port-61", "rtc-read", "serial-poll", "serial-tty"]
BOOT = ["boot-to-init", "power-cycle"]
IDLE = ["idle"]


@dataclasses.dataclass(frozen=True)
class Group:
    key: str
    title: str
    workloads: tuple
    mean_bar: float | None  # geometric mean of the ratios is at least this
    each_bar: float | None  # and no ratio is below this


GROUPS = (
    Group("integer", "Integer and memory", tuple(INTEGER), 2.5, 1),
    Group("float", "Floating point", tuple(FLOAT), 15, None),
    Group("programs", "Real programs", tuple(PROGRAMS), 4, 1.5),
    Group("kernel", "Kernel-heavy", tuple(KERNEL), 2.5, 1),
    Group("mixed", "Computing, with system calls and faults", tuple(MIXED), 2.5, 1),
    Group("boot", "Boot", tuple(BOOT), None, 1),
    Group("ports", "Ports and serial output", tuple(PORTS), None, 1),
    Group("smp", "Two vCPUs", tuple(SMP), None, None),
    Group("idle", "Idle and memory", tuple(IDLE), None, None),
)

# Bars that are no ratio to QEMU.
SCALING_BAR = 1.8  # twice the time of one thread, divided by that of two
NATIVE_BAR = 3.0   # spin and wake-up hand-overs: at most this many times the host's own threads
PARA_WORKLOADS = ("fork", "exec-static", "exec-dynamic", "mmap")
PARA_BARS = (1.5, 0.9, 1.3)  # --para none's time over xen's: mean of these, smallest of the kernel-heavy, boot
IDLE_BAR = 0.01    # host CPUs that an idle guest uses

# One boot of a guest runs the workloads of one kind.
KINDS = {"boot": BOOT, "micro": INTEGER + FLOAT + KERNEL + MIXED + IDLE, "programs": PROGRAMS, "smp": SMP, "ports": PORTS}

DESCRIPTIONS = {
    "alu": "additions, rotates, multiplications in registers",
    "divide": "64-bit divisions",
    "branches": "unpredictable branches (Collatz)",
    "calls": "recursive calls and returns (Fibonacci)",
    "dispatch": "indirect jumps (a threaded bytecode machine)",
    "sort-array": "the C library's qsort on 65,536 integers",
    "hash": "FNV-1a and an open-addressing table",
    "chase": "a pointer chase through 16 MiB",
    "copy": "memcpy, 64 bytes to 1 MiB",
    "strings": "REP MOVS, STOS, SCAS, CMPS",
    "matrix-sse": "matrix product, scalar SSE2",
    "matrix-avx2": "matrix product, AVX2",
    "matrix-fma": "matrix product, FMA",
    "nbody": "n-body simulation, scalar SSE2",
    "x87": "80-bit arithmetic on the x87 unit",
    "getppid": "the shortest system call",
    "read-write": "one byte from /dev/zero and to /dev/null",
    "pipe": "one byte there and back between two processes",
    "fork": "fork, exit, wait",
    "exec-static": "fork, exec of a static program, wait",
    "exec-dynamic": "fork, exec of a dynamically linked program, wait",
    "mmap": "mmap, touch 64 pages, munmap",
    "signals": "kill of oneself and the handler",
    "futex": "two threads of one CPU, futex wait and wake",
    "small-files": "create, write, stat, unlink in tmpfs",
    "calls-1k": "100 ms of arithmetic, a system call every millisecond",
    "calls-10k": "likewise, every 100 us",
    "calls-100k": "likewise, every 10 us",
    "calls-1m": "likewise, every microsecond",
    "touch": "arithmetic, a new page of memory every 10 us",
    "jit": "functions that are written, run and overwritten",
    "gzip": "gzip -6 of text",
    "xz": "xz -2 of text",
    "sort": "coreutils sort of text",
    "openssl": "openssl dgst -sha256",
    "sqlite": "sqlite3: insert, index, join, update",
    "perl": "perl: hashes, regular expressions, sorting",
    "python": "python3: objects, generators, strings",
    "gcc": "gcc -O2 -c of a C file",
    "shell": "a busybox shell loop",
    "pm-timer": "reads of the ACPI PM timer",
    "pit-read": "latch command and two reads of the 8254",
    "port-61": "reads of port 61",
    "rtc-read": "index write and data read of the RTC",
    "serial-poll": "bytes to COM1, each after a look at its status",
    "serial-tty": "bytes through the kernel's serial driver",
    "smp-one": "one thread computes",
    "smp-two": "two threads on two vCPUs compute as much each",
    "smp-spin": "a cache line handed over between spinning vCPUs",
    "smp-counter": "a counter that both vCPUs add to atomically",
    "smp-wake": "a futex hand-over between sleeping vCPUs",
    "boot-to-init": "start of the process to the first line of /init",
    "power-cycle": "start of the process to its end after power-off",
    "idle": "ten seconds of sleep: host CPUs used",
}
