"""Boot of Debian's cloud kernel to /init under each hypervisor, interleaved in one run; prints medians, spread and ratios.

Time runs from the start of the process to the first line that /init prints on the serial console. Bochs has no direct kernel boot: it
starts its BIOS and GRUB from a CD image, so its time is also given from the moment GRUB hands over to the kernel. Guest instructions are
Trapline's count; Bochs' rate is what its own log states while the kernel boots.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
READY = b"Trapline guest:"
KERNEL_STARTS = b"GRUB: hand-over"
APPEND = "console=ttyS0 trapline.run=boot"
LIMIT = 180


def stop(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def watch(argv, cwd=None, log=None):
    """Runs argv with the guest's console on its stdout, or in the file `log`. Returns seconds to each mark."""
    start = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if log is None else subprocess.DEVNULL,
                               stderr=subprocess.PIPE if log is None else subprocess.DEVNULL, cwd=cwd)
    marks, text = {}, b""
    try:
        if log is None:
            os.set_blocking(process.stdout.fileno(), False)
        while "ready" not in marks and time.monotonic() - start < LIMIT:
            chunk = b""
            if log is None:
                chunk = process.stdout.read() or b""
            elif log.exists():
                chunk = log.read_bytes()[len(text):]
            text += chunk
            now = time.monotonic() - start
            if KERNEL_STARTS in text:
                marks.setdefault("kernel", now)
            if READY in text:
                marks["ready"] = now
            if process.poll() is not None and not chunk:
                break
            time.sleep(0.002)
        errors = b""
        if "ready" in marks and log is None:
            try:
                _, errors = process.communicate(timeout=60)
                marks["end"] = time.monotonic() - start
            except subprocess.TimeoutExpired:
                pass
        if "ready" not in marks:
            sys.exit(f"bench: {argv[0]} did not reach /init; the last it printed:\n{text[-2000:].decode(errors='replace')}")
        return marks, errors.decode(errors="replace")
    finally:
        if process.poll() is None:
            stop(process)


def trapline(engine):
    def run():
        marks, errors = watch([str(ROOT / "build/trapline"), "run", "--engine", engine, "--kernel", str(CACHE / "kernels/cloud-amd64/vmlinuz"),
                               "--initrd", str(CACHE / "initrd-amd64"), "--append", APPEND, "--memory", "512M", "--stats"])
        found = re.search(r"([\d,]+) guest instructions", errors)
        if found:
            marks["instructions"] = int(found.group(1).replace(",", ""))
            marks["mips"] = marks["instructions"] / marks["end"] / 1e6
        return marks
    return run


def qemu():
    return watch(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-display", "none", "-serial", "stdio", "-no-reboot",
                  "-nodefaults", "-kernel", str(CACHE / "kernels/cloud-amd64/vmlinuz"), "-initrd", str(CACHE / "initrd-amd64"),
                  "-append", APPEND])[0]


def make_bochs_cd():
    image = CACHE / "bochs.iso"
    sources = [CACHE / "kernels/cloud-amd64/vmlinuz", CACHE / "initrd-amd64"]
    if image.exists() and all(image.stat().st_mtime > s.stat().st_mtime for s in sources):
        return image
    with tempfile.TemporaryDirectory(dir=CACHE) as tree:
        (pathlib.Path(tree) / "boot/grub").mkdir(parents=True)
        shutil.copy(sources[0], f"{tree}/boot/vmlinuz")
        shutil.copy(sources[1], f"{tree}/boot/initrd")
        (pathlib.Path(tree) / "boot/grub/grub.cfg").write_text(
            "set timeout=0\nserial --unit=0 --speed=115200\nterminal_output serial\nmenuentry linux {\n"
            f"  linux /boot/vmlinuz {APPEND} tsc=reliable\n  initrd /boot/initrd\n  echo GRUB: hand-over\n}}\n")
        subprocess.run(["grub-mkrescue", "-o", str(image), tree], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return image


def bochs():
    image = make_bochs_cd()
    with tempfile.TemporaryDirectory() as work:
        serial, log = pathlib.Path(work) / "serial", pathlib.Path(work) / "log"
        (pathlib.Path(work) / "rc").write_text(
            "megs: 512\ncpu: model=corei7_skylake_x, ips=100000000, reset_on_triple_fault=0\n"
            "romimage: file=/usr/share/bochs/BIOS-bochs-latest\nvgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n"
            f"ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\nata0-master: type=cdrom, path={image}, status=inserted\n"
            f"boot: cdrom\ncom1: enabled=1, mode=file, dev={serial}\nlog: {log}\nclock: sync=none\ndisplay_library: {os.environ.get('BOCHS_DISPLAY', 'term')}\n"
            "speaker: enabled=0\n")
        # Debian's build has the debugger compiled in, which waits for a command at the start. term needs a terminal of its own: script(1)
        # gives it one.
        binary = os.environ.get("BOCHS", "bochs-bin")
        (pathlib.Path(work) / "commands").write_text("c\n")
        debugger = f"-rc {work}/commands" if b"bx_debug" in pathlib.Path(shutil.which(binary)).read_bytes() else ""
        argv = ["script", "-qfec", f"{binary} -q -f {work}/rc {debugger}", "/dev/null"]
        os.environ.setdefault("TERM", "xterm")
        marks, _ = watch(argv, cwd=work, log=serial)
        rates = [float(r) for r in re.findall(r"ips = ([\d.]+)M", log.read_text(errors="replace"))]
        if rates:
            marks["mips"] = statistics.median(rates)
        marks["kernel_to_ready"] = marks["ready"] - marks.get("kernel", 0)
        return marks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", help="comma-separated: interpret, qemu, bochs")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "build/bench.json")
    args = parser.parse_args()
    systems = {"interpret": trapline("interpret"), "qemu": qemu, "bochs": bochs}
    if args.only:
        systems = {k: systems[k] for k in args.only.split(",")}
    results = {name: [] for name in systems}
    for n in range(args.runs + 1):  # the first round warms up
        for name, run in systems.items():
            marks = run()
            if n:
                results[name].append(marks)
            print(f"round {n}: {name:10} to /init {marks['ready']:.2f} s", file=sys.stderr)

    def median(name, key):
        values = [r[key] for r in results[name] if key in r]
        return statistics.median(values) if values else None

    print(f"Boot of {(CACHE / 'kernels/cloud-amd64/version').read_text().strip()} to /init, 1 vCPU, 512 MiB, {args.runs} runs each, interleaved")
    for name in systems:
        values = [r["ready"] for r in results[name]]
        line = f"  {name:10} {statistics.median(values):6.2f} s  (min {min(values):.2f}, max {max(values):.2f})"
        if median(name, "instructions"):
            line += f"  {median(name, 'instructions') / 1e6:.0f} million guest instructions to power-off"
        if median(name, "mips"):
            line += f"  {median(name, 'mips'):.0f} MIPS"
        if median(name, "kernel_to_ready"):
            line += f"  (from GRUB's hand-over: {median(name, 'kernel_to_ready'):.2f} s)"
        print(line)
    if "interpret" in systems:
        for peer in ("qemu", "bochs"):
            if peer in systems:
                ratios = [b["ready"] / a["ready"] for a, b in zip(results["interpret"], results[peer])]
                line = f"  {peer} time / interpret time: {statistics.median(ratios):.2f}"
                if median(peer, "mips") and median("interpret", "mips"):
                    line += f"; interpret rate / {peer} rate: {median('interpret', 'mips') / median(peer, 'mips'):.2f}"
                print(line)
    args.json.parent.mkdir(exist_ok=True)
    args.json.write_text(json.dumps(results, indent=1))


main()
