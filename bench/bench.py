#!/usr/bin/env python3
"""Named workloads on this machine itself, under every engine of Trapline, under QEMU TCG and under Bochs, interleaved in one run.

Prints medians, ratios and bars; writes build/bench.json and build/bench.html. Exit code: 0; 1 if a workload failed or its checksum differed
between systems; 2 for bad usage or a missing prerequisite. A bar that is missed is reported, not an error. docs/benchmarks.md says more."""
import argparse
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import catalog, cliffs, commands, devices, image, page, report, session, systems  # noqa: E402

READY = "Trapline guest:"
QUICK = 0.25  # --quick: this scale, one round


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (3)")
    parser.add_argument("--slow-rounds", type=int, default=1, help="of these, in how many the slow systems (interpret, bochs) run more than boots (1)")
    parser.add_argument("--only", help="comma-separated workloads or groups: " + ", ".join([*(g.key for g in catalog.GROUPS), "exec", "image", "cliffs", "cliffs:KIND"]))
    parser.add_argument("--engines", "--systems", dest="systems", help="comma-separated: native, translate, patch, interpret, qemu, bochs; translate/none, translate/xen, patch/none, patch/xen: another --para")
    parser.add_argument("--quick", action="store_true", help=f"one round at --scale {QUICK}, without Bochs")
    parser.add_argument("--scale", type=float, help="work per workload (1: 20 to 100 ms on this machine itself)")
    parser.add_argument("--limit", type=float, default=60, help="seconds that a workload may take (60)")
    parser.add_argument("--trapline", type=pathlib.Path, default=image.ROOT / "build/trapline", help="the executable (build/trapline)")
    parser.add_argument("--json", type=pathlib.Path, default=image.ROOT / "build/bench.json")
    parser.add_argument("--html", type=pathlib.Path, default=image.ROOT / "build/bench.html")
    parser.add_argument("--list", action="store_true", help="the workloads")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 1
    args.scale = args.scale or (QUICK if args.quick else 1)
    if args.rounds < 1 or args.limit < 1 or not 0 < args.scale <= 1000:
        parser.error("--rounds and --limit are at least 1, --scale is positive")
    if args.list:
        for group in catalog.GROUPS:
            print(f"{group.title} ({group.key})")
            for name in group.workloads:
                print(f"  {name:14} {catalog.DESCRIPTIONS[name]}")
        print("Commands in a VM, on this host's files (exec)")
        for row, (_, what, _) in commands.ROWS.items():
            print(f"  {row:14} {what}")
        print("A Debian image: its boot, its disk, its network (image)")
        for row, (what, _, _) in devices.ROWS.items():
            print(f"  {row:14} {what}")
        print("Small loops in varied places (cliffs)")
        for kind, what in cliffs.KINDS.items():
            print(f"  {'cliffs:' + kind:16} {what}")
        sys.exit(0)
    return args


def chosen_workloads(only):
    every = [w for names in catalog.KINDS.values() for w in names]
    if not only:
        return every
    groups, chosen = {g.key: list(g.workloads) for g in catalog.GROUPS}, []
    for word in only.split(","):
        if word in ("cliffs", "exec", "image") or word.startswith("cliffs:") or word in commands.ROWS or word in devices.ROWS:
            continue
        if word not in groups and word not in every:
            sys.exit(f"bench: no workload or group '{word}': bench/bench.py --list")
        chosen += groups.get(word, [word])
    return [w for w in every if w in chosen]


def chosen_cliffs(args):
    """Kinds of rows; [] means all, None means none."""
    only = args.only
    if not only:
        return None if args.quick else []
    if "cliffs" in only.split(","):
        return []
    kinds = [word.removeprefix("cliffs:") for word in only.split(",") if word.startswith("cliffs:")]
    for kind in kinds:
        if kind not in cliffs.KINDS:
            sys.exit(f"bench: no kind of cliffs '{kind}': {', '.join(cliffs.KINDS)}")
    return kinds or None


def chosen_commands(args):
    if not args.only:
        return [] if args.quick else list(commands.ROWS)
    words = args.only.split(",")
    return [row for row in commands.ROWS if "exec" in words or row in words]


def chosen_devices(args, not_run):
    words = (args.only or ("" if args.quick else "image")).split(",")
    rows = [row for row in devices.ROWS if "image" in words or row in words]
    if rows and (why := devices.missing()):
        not_run.append(f"a Debian image: {why}")
        return []
    return rows


def chosen_systems(args, not_run):
    every = {s.name: s for s in systems.every_system(str(args.trapline))}
    usual = [n for n, s in every.items() if s.default and not (args.quick and (n == "bochs" or isinstance(s, systems.Para)))]
    names = args.systems.split(",") if args.systems else usual
    for name in names:
        if name not in every:
            print(f"bench: no system '{name}': {', '.join(every)}", file=sys.stderr)
            sys.exit(2)
    chosen = []
    for name, system in every.items():
        if name not in names:
            not_run.append(f"{name}: not asked for")
        elif why := system.missing():
            not_run.append(f"{name}: {why}")
        else:
            chosen.append(system)
    return chosen


class Run:
    def __init__(self, args):
        self.args, self.not_run, self.failures = args, [], []
        self.workloads = chosen_workloads(args.only)
        self.systems = chosen_systems(args, self.not_run)
        self.measured = {s.name: {} for s in self.systems}
        self.command_rows, self.commands = chosen_commands(args), commands.Commands()
        self.device_rows, self.devices = chosen_devices(args, self.not_run), devices.Devices()
        self.cliff_kinds, self.cliffs = chosen_cliffs(args), cliffs.Cliffs()
        self.given_up = set()  # (system, workload): over the limit once is enough

    def say(self, text):
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def record(self, system, workload, result, number):
        slots = self.measured[system.name].setdefault(workload, [None] * self.args.rounds)
        slots[number] = result
        if result.status == "over":
            self.given_up.add((system.name, workload))
        if result.status == "fail":
            self.failures.append(f"{system.name}: {workload}: {result.reason}")
        elif result.status == "skip":
            note = f"{workload} under {system.name}: {result.reason}"
            if note not in self.not_run:
                self.not_run.append(note)

    def boot(self, system, number):
        boot = systems.Boot(image.CACHE / "initrd-amd64", "console=ttyS0 trapline.run=boot")

        def until(text, at, marks):
            if systems.Bochs.HAND_OVER in text:
                marks.setdefault("hand_over", at)
            if READY in text:
                marks.setdefault("ready", at)
        _, marks = session.run_session(system.start(boot), self.args.limit, None, until)
        if "ready" not in marks:
            return self.failures.append(f"{system.name}: no /init; the last of its console: {marks['tail'][-300:]!r} {marks['errors'][-300:]!r}")
        extra = {k: marks[k] for k in ("instructions", "mips") if k in marks}
        if "hand_over" in marks:
            extra["kernel_to_init"] = marks["ready"] - marks["hand_over"]
        if "boot-to-init" in self.workloads:
            self.record(system, "boot-to-init", session.Result("ok", marks["ready"], extra=extra), number)
        if "power-cycle" in self.workloads and "end" in marks:
            self.record(system, "power-cycle", session.Result("ok", marks["end"]), number)
        self.say(f"round {number + 1}: {system.name}: /init after {marks['ready']:.2f} s")

    def guest(self, system, kind, names, number):
        """One machine that runs these workloads; a new one for the rest if it had to be stopped."""
        initrd = image.programs_initrd() if kind == "programs" else image.micro_initrd()
        while names:
            append = (f"console=ttyS0 quiet trapline.bench={','.join(names)} trapline.scale={self.args.scale:g}"
                      f" trapline.limit={self.args.limit:g}")
            boot = systems.Boot(initrd, append, 2 if kind == "smp" else 1)
            observer = session.idle_observer(systems.MEMORY) if "idle" in names and system.name != "native" else None
            begin = time.monotonic()
            protocol, marks = session.run_session(system.start(boot), self.args.limit, observer)
            for name, result in protocol.results.items():
                if system.name == "native" and result.status == "ok":
                    result.seconds = result.guest_seconds  # one and the same clock, without the pipe to us
                self.record(system, name, result, number)
            self.say(f"round {number + 1}: {system.name}: {kind}: {len(protocol.results)} workloads in {time.monotonic() - begin:.1f} s")
            if protocol.done:
                return
            rest = names[len(protocol.results):]
            if not protocol.ready or not rest:
                said = f"{marks['tail'][-300:]!r} {marks['errors'][-300:]!r}"
                return self.failures.append(f"{system.name}: the {kind} guest ended early; the last of its console: {said}")
            stuck = protocol.running or rest[0]
            if marks.get("killed"):
                self.record(system, stuck, session.Result("over", reason="the whole guest was stopped"), number)
            else:
                self.record(system, stuck, session.Result("fail", reason=f"the guest ended: {marks['tail'][-300:]!r} {marks['errors'][-300:]!r}"), number)
            names = [n for n in rest if n != stuck]

    def round(self, number):
        for kind, of_kind in catalog.KINDS.items():
            names = [w for w in self.workloads if w in of_kind]
            for system in self.systems:
                left = [w for w in names if (system.name, w) not in self.given_up and system.takes(w)]
                if not left or not system.runs(kind) or (system.slow and kind != "boot" and number >= self.args.slow_rounds):
                    continue
                if kind == "boot":
                    self.boot(system, number)
                else:
                    self.guest(system, kind, [w for w in left if not (w == "idle" and system.name == "native")], number)

    def run_cliffs(self, number):
        for system in self.systems:
            if system.name == "bochs" or isinstance(system, systems.Para) or number >= self.args.slow_rounds:  # a row is the best of three by itself
                continue
            rows, left_out, said = cliffs.run_system(system, self.cliff_kinds, self.args.limit * 10)
            self.cliffs.add(system.name, rows, left_out)
            if said:
                self.failures.append(f"{system.name}: cliffs: it ended early; the last of its console: {said}")
            self.say(f"round {number + 1}: {system.name}: cliffs: {len(rows)} rows")

    def run_commands(self, number):
        names = [s.name for s in self.systems]
        self.commands.round(self.command_rows, commands.chosen_systems(str(self.args.trapline), names), lambda text: self.say(f"round {number + 1}: {text}"))

    def run_devices(self, number):
        names = [s.name for s in self.systems]
        executable = str(self.args.trapline)
        self.devices.round(self.device_rows, devices.chosen_systems(executable, names), executable, lambda text: self.say(f"round {number + 1}: {text}"))

    def omissions(self):
        self.failures += self.commands.failures + self.devices.failures
        for system, rows in self.cliffs.left_out.items():
            self.not_run += [f"{system}: cliffs: {row}" for row in rows]
        for system in self.systems:
            for kind, of_kind in catalog.KINDS.items():
                if not system.runs(kind) and any(w in self.workloads for w in of_kind):
                    self.not_run.append(f"{system.name}: the {kind} workloads" + (" (its guest starts from a CD image)" if system.name == "bochs" else ""))
            if isinstance(system, systems.Para):
                self.not_run.append(f"{system.name}: what is neither a boot nor kernel-heavy")
            if system.slow and self.args.slow_rounds < self.args.rounds:
                self.not_run.append(f"{system.name}: more than {self.args.slow_rounds} of {self.args.rounds} rounds, but for boots: it is slow (--slow-rounds)")
        unchosen = [w for names in catalog.KINDS.values() for w in names if w not in self.workloads]
        if unchosen:
            self.not_run.append("not asked for: " + ", ".join(unchosen))
        if any(isinstance(s, systems.Bochs) and s.debugger() for s in self.systems):
            self.not_run.append("bochs without its debugger: Debian's build has it compiled in, which costs speed (BOCHS=PATH names another)")


def tool_version(argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30).stdout.splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return None


def host():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="ascii") if line.startswith("model name")), "?")
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release, "load_before": f"{os.getloadavg()[0]:.1f}"}


def main():
    args = options()
    run = Run(args)
    if not systems.kernel().exists():
        print("bench: no guest kernel: make guests", file=sys.stderr)
        return 2
    about, begin = host(), time.time()
    for number in range(args.rounds):
        run.round(number)
        run.run_commands(number)
        run.run_devices(number)
        if run.cliff_kinds is not None:
            run.run_cliffs(number)
    run.omissions()
    about["load_after"] = f"{os.getloadavg()[0]:.1f}"
    data = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin)), "seconds": round(time.time() - begin), "host": about,
        "kernel": (systems.kernel().parent / "version").read_text().strip(), "memory": systems.MEMORY,
        "options": {"rounds": args.rounds, "scale": args.scale, "limit": args.limit, "only": args.only},
        "versions": {"trapline": tool_version([str(args.trapline), "--version"]), "qemu": tool_version(["qemu-system-x86_64", "--version"])},
        "measured": run.measured, "cliffs": run.cliffs, "commands": run.commands, "devices": run.devices, "not_run": run.not_run, "failures": run.failures,
    }
    text = report.text(data)
    print(text, end="")
    for path, content in ((args.json, report.as_json(data)), (args.html, page.html(data))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    print(f"\nData: {args.json}; plots: {args.html}")
    return 1 if "CHECKSUMS DIFFER" in text or run.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except image.ImageError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
