"""The report as text, and the data behind it as JSON."""
import dataclasses
import json

from . import catalog, cliffs, commands, devices, figures


def duration(seconds):
    if seconds is None:
        return "-"
    if seconds >= 100:
        return f"{seconds:.0f} s"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def short(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def cell(summary):
    if summary.over:
        return f"over {summary.over:g} s"
    return duration(summary.median)


def ratio_cell(r):
    if r is None:
        return "-"
    spread = f" ({short(r.low)}..{short(r.high)})" if r.low is not None else ""
    return f"{r.bound}{short(r.value)}{spread}"


def engines(measured):
    return [s for s in measured if s in ("patch", "translate", "interpret")]


def group_table(measured, group, limit):
    """Rows of strings: a head, a row for each workload that ran, and the geometric means of the ratios."""
    head = ["workload", *measured]
    peers = [(s, "native") for s in measured if s != "native" and "native" in measured]
    peers += [("qemu", e) for e in engines(measured) if "qemu" in measured]
    head += [f"{a}/{b}" for a, b in peers]
    rows, means = [], {p: [] for p in peers}
    for workload in group.workloads:
        if not any(measured[s].get(workload) for s in measured):
            continue
        row = [workload] + [cell(figures.summarize(measured[s].get(workload, []), limit)) for s in measured]
        for a, b in peers:
            r = figures.ratio(measured[a].get(workload, []), measured[b].get(workload, []), limit)
            row.append(ratio_cell(r))
            if r is not None:
                means[a, b].append(r.value)
        rows.append(row)
    # The two-vCPU workloads and boots are not of one kind: no mean.
    if len(rows) > 1 and group.key not in ("smp", "boot", "idle"):
        rows.append(["geometric mean"] + [""] * len(measured) + [short(figures.geometric_mean(means[p])) for p in peers])
    return [head, *rows] if rows else []


def align(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])]).rstrip() for row in rows]


def other_figures(measured, limit):
    lines = []
    for system, workloads in measured.items():
        boots = workloads.get("boot-to-init", [])
        parts = []
        if figures.extra_median(boots, "instructions"):
            parts.append(f"{figures.extra_median(boots, 'instructions') / 1e6:.0f} million guest instructions from power-on to power-off")
        if figures.extra_median(boots, "mips"):
            parts.append(f"{figures.extra_median(boots, 'mips'):.0f} MIPS")
        elif system == "bochs" and figures.bochs_rate(measured):
            parts.append(f"about {figures.bochs_rate(measured):.0f} MIPS, by Trapline's count of instructions")
        if figures.extra_median(boots, "kernel_to_init"):
            parts.append(f"{figures.extra_median(boots, 'kernel_to_init'):.2f} s from the boot loader's hand-over to /init")
        if parts:
            lines.append(f"{system}: boot: " + ", ".join(parts))
        scale = figures.scaling(workloads, limit)
        if scale:
            lines.append(f"{system}: two vCPUs compute {scale:.2f} times as much as one")
        idle = figures.idle_cpus(workloads.get("idle", []))
        if idle is not None and system != "native":
            text = f"{system}: idle: {idle * 100:.2f}% of a host CPU"
            over = figures.extra_median(workloads["idle"], "memory_overhead_mib")
            if over is not None:
                touched = figures.extra_median(workloads["idle"], "guest_ram_touched_mib")
                text += f"; {over:.1f} MiB beside {touched:.0f} MiB of guest RAM touched"
            lines.append(text)
    return lines


def text(run):
    measured, limit = run["measured"], run["options"]["limit"]
    out = [f"{run['kernel']}, {run['memory']} MiB; {run['host']['cpu']}, {run['host']['cpus']} CPUs, load {run['host']['load_before']} before"
           f" and {run['host']['load_after']} after; {run['options']['rounds']} round(s), interleaved; times by the host's clock, medians;"
           " ratios with (smallest..largest) over the rounds", ""]
    for group in catalog.GROUPS:
        if group.key == "idle":
            continue
        rows = group_table(measured, group, limit)
        if rows:
            out += [group.title, *("  " + line for line in align(rows)), ""]
    if "commands" in run:
        out += commands.lines(run["commands"], align)
    if "devices" in run:
        out += devices.lines(run["devices"], align)
    if "cliffs" in run:
        out += cliffs.lines(run["cliffs"], align)
    others = other_figures(measured, limit)
    if others:
        out += ["Further", *("  " + line for line in others), ""]
    for engine in engines(measured):
        bars = figures.engine_bars(measured, engine, limit)
        if bars:
            rows = [[bar.name, short(bar.value), bar.wanted, {True: "pass", False: "MISS", None: "not measured"}[bar.met], bar.detail] for bar in bars]
            out += [f"Bars of {engine}", *("  " + line for line in align(rows)), ""]
    errors = figures.clock_errors(measured)
    if errors:
        out += ["Guest clocks that differ from the host's"]
        out += [f"  {s}: {w}: {duration(h)} by the host's clock, {duration(g)} by the guest's" for s, w, h, g in errors] + [""]
    out += ["Not run", *("  " + line for line in run["not_run"] or ["nothing was left out"]), ""]
    conflicts = figures.checksum_conflicts(measured)
    for workload, sums in conflicts.items():
        out.append(f"CHECKSUMS DIFFER: {workload}: " + "; ".join(f"{', '.join(systems)}: {value}" for value, systems in sums.items()))
    for failure in run["failures"]:
        out.append(f"FAILED: {failure}")
    return "\n".join(out).rstrip() + "\n"


def as_json(run):
    plain = dict(run)
    plain["measured"] = {s: {w: [r and dataclasses.asdict(r) for r in results] for w, results in ws.items()} for s, ws in run["measured"].items()}
    if "commands" in run:
        plain["commands"] = run["commands"].seconds
    if "devices" in run:
        plain["devices"] = run["devices"].figures
    if "cliffs" in run:
        plain["cliffs"] = run["cliffs"].best
    limit = run["options"]["limit"]
    plain["bars"] = {e: [dataclasses.asdict(b) for b in figures.engine_bars(run["measured"], e, limit)] for e in engines(run["measured"])}
    plain["checksum_conflicts"] = figures.checksum_conflicts(run["measured"])
    return json.dumps(plain, indent=1) + "\n"
