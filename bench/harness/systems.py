"""The systems under comparison: how each is started with a kernel, an initrd and a command line, and where its serial console comes out."""
import dataclasses
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile

from . import catalog, image

MEMORY = 1024  # MiB


@dataclasses.dataclass
class Boot:
    initrd: pathlib.Path
    append: str
    cpus: int = 1


@dataclasses.dataclass
class Started:
    argv: list
    console: pathlib.Path | None = None  # a file; else standard output
    directory: str | None = None
    finish: object = None  # called with the process's stderr; returns extra figures


class System:
    slow = False
    default = True  # runs unless systems are named

    def takes(self, workload):
        return True


class Trapline(System):

    def __init__(self, executable, engine):
        self.executable, self.engine, self.name = executable, engine, engine
        self.slow = engine == "interpret"
        self.counted = ["--stats"] if self.slow else []  # it counts instructions anyway; others are slower with it

    def missing(self):
        """Why it cannot run, or None. Asks the executable, which refuses an engine that it does not have before it opens a file."""
        if not os.access(self.executable, os.X_OK):
            return f"no executable {self.executable}: make build"
        argv = [self.executable, "run", "--engine", self.engine, "--kernel", "/nonexistent/kernel"]
        said = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60).stderr.strip()
        return None if "/nonexistent/kernel" in said else said or "refused"

    def runs(self, kind):
        return True

    def start(self, boot):
        return Started([self.executable, "run", "--engine", self.engine, "--kernel", str(kernel()), "--initrd", str(boot.initrd), "--append",
                        boot.append, "--memory", f"{MEMORY}M", "--cpus", str(boot.cpus), *self.counted], finish=self.statistics)

    @staticmethod
    def statistics(errors):
        found = re.search(r"statistics: ([\d,]+) instructions in ([\d.]+) s: ([\d.]+) MIPS", errors)
        if not found:
            return {}
        return {"instructions": int(found.group(1).replace(",", "")), "mips": float(found.group(3))}


class Para(Trapline):
    """An engine with another hypervisor's interface than the default (KVM's): what a kernel does, and boots."""

    def __init__(self, executable, engine, para, default):
        super().__init__(executable, engine)
        self.para, self.name, self.default = para, f"{engine}/{para}", default

    def missing(self):
        return None if self.para == "none" else super().missing()

    def takes(self, workload):
        return workload in catalog.BOOT + catalog.KERNEL

    def start(self, boot):
        append = boot.append.replace("console=ttyS0", "console=hvc0") if self.para == "xen" else boot.append
        started = super().start(dataclasses.replace(boot, append=append))
        started.argv += ["--para", self.para]
        return started


class Qemu(System):
    name = "qemu"

    def missing(self):
        return None if shutil.which("qemu-system-x86_64") else "qemu-system-x86_64 is not installed: scripts/setup.sh bench"

    def runs(self, kind):
        return True

    def start(self, boot):
        return Started(["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", str(MEMORY), "-smp", str(boot.cpus),
                        "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-nodefaults", "-kernel", str(kernel()),
                        "-initrd", str(boot.initrd), "-append", boot.append])


class Bochs(System):
    """Bochs has no direct kernel boot: its BIOS starts GRUB from a CD image. GRUB says when it hands over to the kernel."""
    slow, name = True, "bochs"
    HAND_OVER = "GRUB: hand-over"

    def missing(self):
        for tool in ("bochs-bin", "grub-mkrescue", "script"):
            if not shutil.which(os.environ.get("BOCHS", tool) if tool == "bochs-bin" else tool):
                return f"{tool} is not installed: scripts/setup.sh bench"
        return None

    def runs(self, kind):
        return kind in ("boot", "micro")

    @staticmethod
    def debugger():
        """Debian's build has the debugger compiled in, which waits for a command at the start, and costs speed."""
        return b"bx_debug" in pathlib.Path(shutil.which(os.environ.get("BOCHS", "bochs-bin"))).read_bytes()

    @staticmethod
    def cd(boot):
        stamp = [(p, p.stat().st_mtime_ns) for p in (kernel(), boot.initrd)]
        result = image.WORK / f"bochs-{image.digest(stamp, boot.append)}.iso"
        if result.exists():
            return result
        for old in image.WORK.glob("bochs-*.iso"):
            if len(list(image.WORK.glob("bochs-*.iso"))) >= 4:
                old.unlink()
        with tempfile.TemporaryDirectory(dir=image.WORK) as tree:
            (pathlib.Path(tree) / "boot/grub").mkdir(parents=True)
            shutil.copy(kernel(), f"{tree}/boot/vmlinuz")
            shutil.copy(boot.initrd, f"{tree}/boot/initrd")
            (pathlib.Path(tree) / "boot/grub/grub.cfg").write_text(
                "set timeout=0\nserial --unit=0 --speed=115200\nterminal_output serial\nmenuentry linux {\n"
                f"  linux /boot/vmlinuz {boot.append} tsc=reliable\n  initrd /boot/initrd\n  echo {Bochs.HAND_OVER}\n}}\n")
            subprocess.run(["grub-mkrescue", "-o", f"{result}.new", tree], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.replace(f"{result}.new", result)
        return result

    def start(self, boot):
        work = tempfile.mkdtemp(prefix="bench-bochs-")
        console, log = pathlib.Path(work) / "serial", pathlib.Path(work) / "log"
        display = os.environ.get("BOCHS_DISPLAY", "term")
        (pathlib.Path(work) / "rc").write_text(
            f"megs: {MEMORY}\ncpu: model=corei7_skylake_x, ips=100000000, reset_on_triple_fault=0\n"
            "romimage: file=/usr/share/bochs/BIOS-bochs-latest\nvgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n"
            "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n"
            f"ata0-master: type=cdrom, path={self.cd(boot)}, status=inserted\n"
            f"boot: cdrom\ncom1: enabled=1, mode=file, dev={console}\nlog: {log}\nclock: sync=none\ndisplay_library: {display}\n"
            "speaker: enabled=0\n")
        (pathlib.Path(work) / "commands").write_text("c\n")
        debugger = f"-rc {work}/commands" if self.debugger() else ""
        binary = os.environ.get("BOCHS", "bochs-bin")

        def rate(_):
            rates = [float(r) for r in re.findall(r"ips = ([\d.]+)M", log.read_text(errors="replace"))] if log.exists() else []
            shutil.rmtree(work, ignore_errors=True)
            return {"mips": statistics.median(rates)} if rates else {}

        os.environ.setdefault("TERM", "xterm")
        # Its terminal display needs a terminal of its own: script(1) gives it one.
        return Started(["script", "-qfec", f"{binary} -q -f {work}/rc {debugger}", "/dev/null"], console, work, rate)


class Native(System):
    """The same runner and programs on this machine, pinned to as many CPUs."""
    slow, name = False, "native"

    def missing(self):
        return None

    def runs(self, kind):
        return kind not in ("boot", "ports")  # its ports are not ours

    def start(self, boot):
        binaries = image.compile_guest()
        words = [w for w in boot.append.split() if w.startswith("trapline.")]
        scratch = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
        return Started([str(binaries / "workloads"), f"scratch={scratch}/trapline-bench-{os.getpid()}", f"helpers={binaries}",
                        f"tree={image.WORK / 'tree'}", *words])


def kernel():
    return image.CACHE / "kernels/cloud-amd64/vmlinuz"


def every_system(executable):
    engines = [Trapline(executable, e) for e in ("translate", "patch", "interpret")]
    para = [Para(executable, e, p, e == "translate") for e in ("translate", "patch") for p in ("none", "xen")]
    return [Native(), *engines, *para, Qemu(), Bochs()]
