"""Commands on this host's files, each in a VM of its own: `trapline exec`, and QEMU as virtme-ng starts it (the same kernel, the root by 9p).

A row is timed from the start of the program that makes the VM to its end, as whoever waits for the command sees it."""
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

from . import image

ROWS = {
    "exec-true": ("true", "a command that does nothing", 0.6),
    "exec-make": ("make", "make -j2 of a C project of 20 files in the shared folder", 0.6),
    "exec-git": ("git", "git init, add, commit and log in the shared folder", None),
}
SCRIPTS = {
    "true": "true",
    "make": "make -s -j2 && ./program",
    "git": "git init -q . && git add . && git -c user.name=a -c user.email=a commit -qm first && git log --oneline | wc -l && git status --short",
}
MEMORY = "1024"
LIMIT = 300
# What exec gives its kernel.
APPEND = ("console=ttyS0 panic=-1 no_timer_check cryptomgr.notests apparmor=0 selinux=0 audit=0 mitigations=off random.trust_cpu=on "
          "8250.nr_uarts=1 rcupdate.rcu_expedited=1 rodata=off init_on_alloc=0 quiet loglevel=1")
KERNEL = image.CACHE / "kernels/amd64"


def write_project(folder):
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"part{n}" for n in range(20)]
    for n, name in enumerate(names):
        body = "".join(f"static unsigned {name}_{k}(unsigned x) {{ return x * {2 * k + 3}u + (x >> {k % 7 + 1}); }}\n" for k in range(60))
        calls = "".join(f"  x = {name}_{k}(x);\n" for k in range(60))
        (folder / f"{name}.c").write_text(f"#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n{body}unsigned {name}(unsigned x) {{\n{calls}  return x;\n}}\n")
    declared = "".join(f"unsigned {name}(unsigned);\n" for name in names)
    called = "".join(f"  x = {name}(x);\n" for name in names)
    (folder / "main.c").write_text(f"#include <stdio.h>\n{declared}int main(void) {{\n  unsigned x = 1;\n{called}  printf(\"%u\\n\", x);\n  return 0;\n}}\n")
    objects = " ".join(f"{name}.o" for name in [*names, "main"])
    (folder / "Makefile").write_text(f"CFLAGS = -O1\nprogram: {objects}\n\tcc -o $@ $^\n")


class Command:
    """A folder with what the row needs, made anew for each run."""

    def __init__(self, row):
        self.script = SCRIPTS[ROWS[row][0]]
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-exec-", dir=image.WORK)).resolve()
        write_project(self.folder)
        (self.folder / "bench-command").write_text(self.script + "\n")

    def end(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Exec:
    def __init__(self, executable, engine):
        self.name, self.executable, self.engine = engine, executable, engine

    def argv(self, command):
        # Beside QEMU's two: the VM has as many CPUs as make has jobs.
        return [self.executable, "exec", "--engine", self.engine, "--cpus", "2", "--memory", MEMORY + "M", "--kernel", str(KERNEL / "vmlinuz"),
                "--workdir", str(command.folder), "--share", str(command.folder), "--", "sh", "bench-command"]

    def output(self, text):
        return text


class Virtme:
    name = "qemu"

    def argv(self, command):
        def folder(tag, path, readonly):
            options = f"local,id={tag},path={path},security_model=none,multidevs=remap" + (",readonly=on" if readonly else "")
            return ["-fsdev", options, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
        return ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", MEMORY, "-smp", "2", "-display", "none", "-serial", "stdio",
                "-monitor", "none", "-no-reboot", "-nodefaults", "-kernel", str(KERNEL / "vmlinuz"), "-initrd", str(KERNEL / "initrd"),
                *folder("root", "/", True), *folder("share0", command.folder, False),
                "-append", f"{APPEND} trapline.modules=virtio_pci,9pnet_virtio,9p,overlay trapline.run=command trapline.folder={command.folder}"]

    def output(self, text):
        """What the command has said: between two lines of /init's."""
        begin, end = "guest-test: command\n", "guest-test: code 0"
        text = text.replace("\r", "")
        return text.split(begin, 1)[1].split(end, 1)[0] if begin in text and end in text else text[-300:]


def run_once(system, row):
    """(seconds, what the command said)"""
    command = Command(row)
    try:
        begin = time.monotonic()
        ended = subprocess.run(system.argv(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT,
                               env=dict(os.environ, TRAPLINE_CACHE=str(image.CACHE)))
        return time.monotonic() - begin, system.output(ended.stdout.decode(errors="replace"))
    finally:
        command.end()


class Commands:
    def __init__(self):
        self.seconds, self.said, self.failures = {}, {}, []

    def round(self, names, systems, say):
        for row in names:
            for system in systems:
                try:
                    seconds, said = run_once(system, row)
                except subprocess.TimeoutExpired:
                    self.failures.append(f"{system.name}: {row}: over {LIMIT} s")
                    continue
                if said != self.said.setdefault(row, said):
                    self.failures.append(f"{system.name}: {row}: said {said!r}, others {self.said[row]!r}")
                self.seconds.setdefault(row, {}).setdefault(system.name, []).append(seconds)
                say(f"{system.name}: {row}: {seconds:.2f} s")

    def medians(self):
        return {row: {system: statistics.median(s) for system, s in by.items()} for row, by in self.seconds.items()}


def chosen_systems(executable, names):
    all_of_them = [Exec(executable, "translate"), Exec(executable, "patch"), Virtme()]
    return [s for s in all_of_them if s.name in names]


def lines(commands, align):
    """The report's part."""
    medians = commands.medians()
    if not medians:
        return []
    engines = sorted({s for by in medians.values() for s in by} - {"qemu"})
    head = ["row", *(f"{e} s" for e in engines), "qemu s", *(f"{e} / TCG" for e in engines), "bar", ""]
    body = []
    for row, by in medians.items():
        tcg, bar = by.get("qemu"), ROWS[row][2]
        ratios = {e: by[e] / tcg for e in engines if tcg and e in by}
        best = min(ratios.values(), default=None)
        verdict = "" if bar is None or best is None else f"at most {bar}: " + ("pass" if best <= bar else "MISS")
        body.append([row, *(f"{by[e]:.2f}" if e in by else "-" for e in engines), f"{tcg:.2f}" if tcg else "-",
                     *(f"{ratios[e]:.2f}" if e in ratios else "-" for e in engines), verdict, ROWS[row][1]])
    return ["Commands in a VM, on this host's files, from start to end", *("  " + line for line in align([head, *body])), ""]
