"""The rows of bench/cliffs: small loops in varied places, ranked by how much slower a guest runs them than the machine itself."""
import subprocess
import time

from . import figures, image, systems

SOURCES = ["main", "places", "strings", "instructions", "calls", "changes", "kernel"]
KINDS = {
    "page-end": "a loop of code that ends so many bytes behind the end of a page",
    "line": "a loop at each offset to a line of 64 bytes",
    "distance": "copies between two places that are a power of two apart",
    "stride": "64 accesses with a distance between them, and 8,192 pages in turn",
    "align": "accesses aligned, odd, over the end of a line and of a page",
    "rep": "string instructions by length in bytes, direction, overlap and distance",
    "insn": "one sort of instruction",
    "float": "denormals, x87 loops",
    "call": "call depths, indirect targets by number and distance",
    "far": "far branches, 32-bit code in a 64-bit program",
    "change": "code that is written, data beside code",
    "kernel": "system calls, signals, faults",
    "map": "mappings that change, before and after much was touched",
}
SLOWDOWN_BAR = 20  # times native
SHOWN = 40


def compile_cliffs():
    directory = image.BENCH / "cliffs"
    sources = [directory / f"{name}.c" for name in SOURCES] + [image.BENCH / "guest/console.c"]
    result = image.WORK / "bin/cliffs"
    result.parent.mkdir(parents=True, exist_ok=True)
    if not image.newer(result, [*directory.glob("*.[ch]"), *sources]):
        subprocess.run(["gcc", *image.FLAGS, "-static", "-no-pie", "-o", str(result), *map(str, sources)], check=True)
    return result


def initrd():
    binary, result = compile_cliffs(), image.WORK / "cliffs.cpio"
    if not image.newer(result, [binary]):
        image.write_cpio(result, [("dev", None), ("proc", None), ("tmp", None), ("init", binary)])
    return result


def parse(text):
    """({"kind case": nanoseconds}, what was left out, whether it came to its end)."""
    rows, left_out, done = {}, [], False
    for line in text.splitlines():
        words = line.strip().split()
        if len(words) == 4 and words[0] == "CLIFF":
            rows[f"{words[1]} {words[2]}"] = float(words[3])
        elif len(words) > 2 and words[0] == "CLIFF-NOT":
            left_out.append(" ".join(words[1:]))
        elif words == ["CLIFF-DONE"]:
            done = True
    return rows, left_out, done


def run_system(system, kinds, limit):
    """One run of all rows. Returns what parse() does, and what else was said if it did not come to its end."""
    if system.name == "native":
        argv = [str(compile_cliffs()), ",".join(kinds)]
    else:
        append = "console=ttyS0 quiet" + (f" cliffs={','.join(kinds)}" if kinds else "")
        argv = system.start(systems.Boot(initrd(), append)).argv
    begin = time.monotonic()
    try:
        ended = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=limit)
        output, errors = ended.stdout, ended.stderr
    except subprocess.TimeoutExpired as over:
        output, errors = over.stdout or b"", over.stderr or b""
    rows, left_out, done = parse(output.decode(errors="replace"))
    said = None if done else f"{output[-300:]!r} {errors[-300:]!r} after {time.monotonic() - begin:.0f} s"
    return rows, left_out, said


class Cliffs:
    """The best of all rounds by system and row."""

    def __init__(self):
        self.best, self.left_out = {}, {}

    def add(self, system, rows, left_out):
        best = self.best.setdefault(system, {})
        for name, value in rows.items():
            best[name] = min(value, best.get(name, value))
        self.left_out[system] = left_out

    def ranked(self, engine):
        """[row, nanoseconds by system, times native, times TCG], the slowest against the machine itself first."""
        native, tcg, table = self.best.get("native", {}), self.best.get("qemu", {}), []
        for name, value in self.best.get(engine, {}).items():
            by_native = value / native[name] if native.get(name) else None
            by_tcg = value / tcg[name] if tcg.get(name) else None
            table.append((name, value, by_native, by_tcg))
        return sorted(table, key=lambda row: -(row[2] or row[3] or 0))


def number(value):
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def lines(cliffs, align):
    """The report's part."""
    out = []
    for engine in [s for s in cliffs.best if s not in ("native", "qemu")]:
        ranked = cliffs.ranked(engine)
        native, tcg = cliffs.best.get("native", {}), cliffs.best.get("qemu", {})

        def table(rows):
            head = ["row", "native ns", f"{engine} ns", "qemu ns", "times native", "TCG times native", "times TCG"]
            body = []
            for name, value, by_native, by_tcg in rows:
                tcg_by_native = tcg[name] / native[name] if native.get(name) and tcg.get(name) else None
                body.append([name, number(native.get(name)), number(value), number(tcg.get(name)), number(by_native), number(tcg_by_native), number(by_tcg)])
            return ["  " + line for line in align([head, *body])]

        out += [f"Cliffs of {engine}: {len(ranked)} rows, the {min(SHOWN, len(ranked))} slowest against the machine itself", *table(ranked[:SHOWN]), ""]
        slower = sorted((r for r in ranked if r[3] and r[3] > 1), key=lambda r: -r[3])
        if slower:
            out += [f"Cliffs of {engine}: slower than TCG", *table(slower[:SHOWN]), ""]
        kinds = []
        for kind, what in KINDS.items():
            of_kind = [r for r in ranked if r[0].split()[0] == kind]
            by_native = [r[2] for r in of_kind if r[2]]
            by_tcg = [r[3] for r in of_kind if r[3]]
            if of_kind:
                kinds.append([kind, str(len(of_kind)), number(figures.geometric_mean(by_native)), number(max(by_native, default=None)),
                              number(figures.geometric_mean(by_tcg)), number(max(by_tcg, default=None)), what])
        if kinds:
            out += [f"Cliffs of {engine} by kind", *("  " + line for line in align(
                [["kind", "rows", "times native", "at most", "times TCG", "at most", ""], *kinds])), ""]
        over = sum(1 for r in ranked if r[2] and r[2] > SLOWDOWN_BAR)
        out += [f"  over {SLOWDOWN_BAR} times native: {over}; slower than TCG: {len(slower)}", ""]
    return out
