"""Disk, network and boot of a Debian image, under Trapline and under QEMU TCG with the same image, kernel and back ends.

The image is made once by `trapline image build` (mmdebstrap, root not needed) and booted by direct kernel boot, its disk thrown away afterwards. Two boots a
system and round: one to the login prompt, timed from the start of the program that makes the VM; and one into a shell, in which fio works on a
scratch disk (O_DIRECT, a raw file of the host's, its page cache in between for both) and iperf3 talks to the host through libslirp for both."""
import json
import os
import re
import select
import shutil
import statistics
import subprocess
import time

from . import image

# row: (what, unit, bar: so many times TCG's figure at least; for seconds at most)
ROWS = {
    "image-login": ("a Debian image, from power-on to the login prompt", "s", 0.5),
    "fio-read": ("fio: sequential reads of 64 KiB, 16 at a time", "MB/s", 4),
    "fio-write": ("fio: sequential writes of 64 KiB, 16 at a time", "MB/s", 4),
    "fio-read1m": ("fio: sequential reads of 1 MiB, 16 at a time", "MB/s", 4),
    "fio-write1m": ("fio: sequential writes of 1 MiB, 16 at a time", "MB/s", 4),
    "fio-randread": ("fio: random reads of 4 KiB, 16 at a time", "MB/s", 4),
    "fio-randwrite": ("fio: random writes of 4 KiB, 16 at a time", "MB/s", 4),
    "iperf3-send": ("iperf3: one TCP stream to the host", "Mbit/s", 3),
    "iperf3-receive": ("iperf3: one TCP stream from the host", "Mbit/s", 3),
}
NAME = "bench"
MEMORY, CPUS = "1024", "2"
SCRATCH_MIB = 512
SECONDS = 5
LIMIT = 300
DONE = "bench-row-done"


class Guest:
    """A VM with its console on pipes."""

    def __init__(self, argv, environment):
        self.begin = time.monotonic()
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        self.text, self.seen = "", 0

    def wait_for(self, pattern, limit=LIMIT):
        """The match behind what was matched before; seconds from the start."""
        until = time.monotonic() + limit
        while True:
            if found := re.compile(pattern).search(self.text, self.seen):
                self.seen = found.end()
                return found, time.monotonic() - self.begin
            if time.monotonic() > until or not select.select([self.process.stdout], [], [], 1)[0]:
                if time.monotonic() > until:
                    raise TimeoutError(f"no {pattern!r}: {self.text[-300:]!r}")
                continue
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise TimeoutError(f"it has ended: {self.text[-300:]!r}")
            self.text += data.decode(errors="replace").replace("\r", "")

    def command(self, line):
        """What a command of the shell says."""
        self.process.stdin.write(f"{line}; echo {DONE[:5]}''{DONE[5:]}\n".encode())
        self.process.stdin.flush()
        begin = self.seen
        found, _ = self.wait_for(DONE)
        return self.text[begin:found.start()]

    def end(self):
        self.process.kill()
        self.process.wait()


class Trapline:
    def __init__(self, executable, engine):
        self.name, self.executable, self.engine = engine, executable, engine

    def argv(self, folder, scratch, append):
        return [self.executable, "run", str(folder / "vmlinuz"), "--initrd", str(folder / "initrd.img"), "--engine", self.engine, "--cpus", CPUS, "--memory", MEMORY + "M",
                "--disk", f"{folder / 'disk.raw'},format=raw,snapshot", "--disk", f"{scratch},format=raw", "--net", "user", "--rng", "--append", append]


class Qemu:
    name = "qemu"

    def argv(self, folder, scratch, append):
        def disk(name, path, snapshot):
            return ["-drive", f"file={path},format=raw,if=none,id={name},snapshot={snapshot}", "-device", f"virtio-blk-pci,drive={name}"]
        return ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", MEMORY, "-smp", CPUS, "-display", "none", "-serial", "stdio", "-monitor", "none",
                "-no-reboot", "-nodefaults", "-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img"), *disk("root", folder / "disk.raw", "on"),
                *disk("scratch", scratch, "off"), "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci", "-append", append]


def fio(guest, kind):
    kind, block = (kind[:-2], "1m") if kind.endswith("1m") else (kind, "4k" if "rand" in kind else "64k")
    said = guest.command(f"fio --name=row --filename=/dev/vdb --rw={kind} --bs={block} --size={SCRATCH_MIB}M --direct=1 --ioengine=libaio --iodepth=16 "
                         f"--runtime={SECONDS} --time_based --output-format=json --output=/run/fio; cat /run/fio")
    begin, end = said.index("{"), said.rindex("}")
    job = json.loads(said[begin:end + 1])["jobs"][0]
    return job["write" if "write" in kind else "read"]["bw_bytes"] / 1e6


def iperf3(guest, reverse):
    server = subprocess.Popen(["iperf3", "-s", "-1", "-B", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        said = guest.command(f"iperf3 -c 10.0.2.2 -t {SECONDS} {'-R' if reverse else ''} --json >/run/iperf3; cat /run/iperf3")
        return json.loads(said[said.index("{"):said.rindex("}") + 1])["end"]["sum_received"]["bits_per_second"] / 1e6
    finally:
        server.kill()
        server.wait()


class Devices:
    def __init__(self):
        self.figures, self.failures = {}, []
        self.folder = self.scratch = None

    def make_image(self, executable):
        data = image.WORK / "images"
        self.folder = data / "trapline/images" / NAME
        if not self.folder.exists():
            built = subprocess.run([executable, "image", "build", "debian", NAME, "--packages", "fio,iperf3"], env=dict(os.environ, XDG_DATA_HOME=str(data)),
                                   capture_output=True, text=True, timeout=1800)
            if built.returncode != 0:
                raise image.ImageError(f"no Debian image: {built.stderr.strip().splitlines()[-1:]}")
        self.scratch = image.WORK / "scratch.raw"
        if not self.scratch.exists():
            self.scratch.write_bytes(os.urandom(1 << 20) * SCRATCH_MIB)

    def record(self, system, row, figure, say):
        self.figures.setdefault(row, {}).setdefault(system.name, []).append(figure)
        say(f"{system.name}: {row}: {figure:.2f} {ROWS[row][1]}")

    def login(self, system, environment, say):
        guest = Guest(system.argv(self.folder, self.scratch, "root=/dev/vda rw console=ttyS0"), environment)
        try:
            self.record(system, "image-login", guest.wait_for(r"login: ")[1], say)
        finally:
            guest.end()

    def work(self, system, names, environment, say):
        guest = Guest(system.argv(self.folder, self.scratch, "root=/dev/vda rw console=ttyS0 quiet init=/bin/sh"), environment)
        try:
            guest.wait_for("# ")
            guest.command("mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs run /run; mount -t tmpfs none /tmp; stty -echo; modprobe virtio_net")
            guest.command("cd /run; card=$(ls /sys/class/net | grep -v lo); ip link set lo up; ip link set $card up; "
                          "ip addr add 10.0.2.15/24 dev $card; ip route add default via 10.0.2.2")
            for row in names:
                tool, kind = row.split("-")
                self.record(system, row, fio(guest, kind) if tool == "fio" else iperf3(guest, kind == "receive"), say)
        finally:
            guest.end()

    def round(self, names, systems, executable, say):
        if not names:
            return
        self.make_image(executable)
        environment = dict(os.environ, XDG_RUNTIME_DIR=str(image.WORK))
        for system in systems:
            try:
                if "image-login" in names:
                    self.login(system, environment, say)
                if rest := [row for row in names if row != "image-login"]:
                    self.work(system, rest, environment, say)
            except (TimeoutError, ValueError, KeyError) as error:
                self.failures.append(f"{system.name}: image: {error}")

    def medians(self):
        return {row: {system: statistics.median(s) for system, s in by.items()} for row, by in self.figures.items()}


def missing():
    if not shutil.which("iperf3"):
        return "iperf3 is not installed: scripts/setup.sh bench"
    return None


def chosen_systems(executable, names):
    return [s for s in [Trapline(executable, "translate"), Trapline(executable, "patch"), Qemu()] if s.name in names]


def lines(devices, align):
    """The report's part."""
    medians = devices.medians()
    if not medians:
        return []
    engines = sorted({s for by in medians.values() for s in by} - {"qemu"})
    head = ["row", "unit", *engines, "qemu", *(f"{e} / TCG" for e in engines), "bar", ""]
    body = []
    for row, by in medians.items():
        what, unit, bar = ROWS[row]
        tcg = by.get("qemu")
        ratios = {e: by[e] / tcg for e in engines if tcg and e in by}
        seconds = unit == "s"
        best = (min if seconds else max)(ratios.values(), default=None)
        verdict = "" if best is None else f"at {'most' if seconds else 'least'} {bar}: " + ("pass" if (best <= bar if seconds else best >= bar) else "MISS")
        body.append([row, unit, *(f"{by[e]:.2f}" if e in by else "-" for e in engines), f"{tcg:.2f}" if tcg else "-",
                     *(f"{ratios[e]:.2f}" if e in ratios else "-" for e in engines), verdict, what])
    return ["A Debian image: its boot, its disk, its network", *("  " + line for line in align([head, *body])), ""]
