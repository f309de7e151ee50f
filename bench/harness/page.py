"""The report as one self-contained HTML page: for each group a plot of the times relative to this machine itself, then the tables."""
import html as escape_module
import math

from . import catalog, figures, report

COLOURS = {"native": "var(--native)", "translate": "var(--translate)", "patch": "var(--patch)", "interpret": "var(--interpret)",
           "translate/none": "var(--none)", "translate/xen": "var(--xen)", "patch/none": "var(--none)", "patch/xen": "var(--xen)",
           "qemu": "var(--qemu)", "bochs": "var(--bochs)"}
LABELS = {"native": "this machine itself", "translate": "Trapline, translate", "patch": "Trapline, patch", "interpret": "Trapline, interpret",
          **{f"{e}/{p}": f"Trapline, {e}, --para {p}" for e in ("translate", "patch") for p in ("none", "xen")},
          "qemu": "QEMU TCG", "bochs": "Bochs"}
ROW, LEFT, WIDTH, RIGHT = 26, 130, 900, 24

STYLE = """
:root { color-scheme: light dark; --back: #fbfbf9; --card: #fff; --ink: #20242a; --faint: #6b7280; --line: #e3e5e8; --native: #8a8f98; --translate: #1769e0;
 --patch: #0e9f6e; --interpret: #7c5cd6; --qemu: #e07b16; --bochs: #b4435a; --none: #5d7a1f; --xen: #0b8ba8; --pass: #12855a; --miss: #c42b3c; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1b1f25; --ink: #e5e8ec; --faint: #939ba6; --line: #30363e; --native: #9aa1ab;
 --translate: #5b9dff; --patch: #3ac796; --interpret: #a58cf2; --qemu: #f2a04c; --bochs: #e07a8e; --none: #a3c34f; --xen: #4fc3dc; --pass: #4cc38f; --miss: #ff7685; } }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p, li { color: var(--faint); } section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .4rem 1.2rem 1.2rem; margin-top: 1.2rem; }
section h2 { margin-top: .8rem; } svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font-size: 12px; } svg text.axis { fill: var(--faint); font-size: 11px; }
.legend span { display: inline-block; margin-right: 1.1rem; white-space: nowrap; } .legend i { display: inline-block; width: .75rem; height: .75rem; border-radius: 50%; margin-right: .4rem; vertical-align: -1px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin-top: .8rem; white-space: nowrap; }
th, td { text-align: right; padding: .22rem .7rem; border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--faint); font-weight: 600; } tr.mean td { font-weight: 600; } .pass { color: var(--pass); font-weight: 600; } .miss { color: var(--miss); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: .8rem; } .card { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .9rem; }
.card b { display: block; font-size: 1.5rem; } .card small { color: var(--faint); }
"""


def e(text):
    return escape_module.escape(str(text))


def points(measured, group, limit):
    """{workload: {system: (low, median, high, over)}}, relative to this machine itself where that ran, else in seconds."""
    relative = any(measured.get("native", {}).get(w) for w in group.workloads)
    found = {}
    for workload in group.workloads:
        base = figures.summarize(measured.get("native", {}).get(workload, []), limit).median if relative else 1
        if not base:
            continue
        for system in measured:
            s = figures.summarize(measured[system].get(workload, []), limit)
            if s.seconds is not None:
                low, high = (s.low, s.high) if s.low is not None else (s.seconds, s.seconds)
                found.setdefault(workload, {})[system] = (low / base, s.seconds / base, high / base, bool(s.over))
    return found, relative


def ticks(low, high):
    steps, decade = [], math.floor(math.log10(low))
    while 10**decade <= high:
        steps += [m * 10**decade for m in (1, 2, 5) if low <= m * 10**decade <= high]
        decade += 1
    return steps if len(steps) <= 9 else [t for t in steps if f"{t:e}".startswith("1.")]


def plot(measured, group, limit):
    data, relative = points(measured, group, limit)
    if not data:
        return ""
    every = [v for systems in data.values() for point in systems.values() for v in point[:3] if v > 0]
    low, high = min(every) / 1.3, max(every) * 1.3
    height, span = len(data) * ROW + 40, math.log(high / low)

    def x(value):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(max(value, low) / low) / span
    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{e(group.title)}">']
    for t in ticks(low, high):
        out.append(f'<line x1="{x(t):.1f}" x2="{x(t):.1f}" y1="6" y2="{height - 32}" stroke="var(--line)"/>'
                   f'<text class="axis" x="{x(t):.1f}" y="{height - 16}" text-anchor="middle">{t:g}{"×" if relative else " s"}</text>')
    for row, (workload, systems) in enumerate(data.items()):
        y = 6 + row * ROW + ROW / 2
        out.append(f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{e(workload)}<title>{e(catalog.DESCRIPTIONS[workload])}</title></text>')
        for system, (first, middle, last, over) in systems.items():
            unit = f"{report.short(middle)} times native" if relative else report.duration(middle)
            title = f"<title>{e(LABELS[system])}: {e(workload)}: {'over ' if over else ''}{unit}</title>"
            if last > first:
                out.append(f'<line x1="{x(first):.1f}" x2="{x(last):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{COLOURS[system]}" stroke-width="3" opacity=".4"/>')
            shape = (f'<path d="M{x(middle) - 5:.1f} {y - 6:.1f}l10 6l-10 6z" fill="{COLOURS[system]}">{title}</path>' if over else
                     f'<circle cx="{x(middle):.1f}" cy="{y:.1f}" r="5.5" fill="{COLOURS[system]}" stroke="var(--card)" stroke-width="1.5">{title}</circle>')
            out.append(shape)
    caption = "time relative to this machine itself, logarithmic; left is faster" if relative else "seconds, logarithmic; left is faster"
    out.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{height - 2}" text-anchor="end">{caption}; a bar is the range over the rounds</text></svg>')
    return "".join(out)


def table(rows):
    if not rows:
        return ""
    out = ['<div class="scroll"><table><tr>', *(f"<th>{e(c)}</th>" for c in rows[0]), "</tr>"]
    for row in rows[1:]:
        out.append('<tr class="mean">' if row[0] == "geometric mean" else "<tr>")
        out += [f"<td>{e(c)}</td>" for c in row] + ["</tr>"]
    return "".join(out + ["</table></div>"])


def bars(measured, engine, limit):
    rows = []
    for bar in figures.engine_bars(measured, engine, limit):
        verdict = {True: '<span class="pass">pass</span>', False: '<span class="miss">miss</span>', None: "not measured"}[bar.met]
        rows.append(f"<tr><td>{e(bar.name)}</td><td>{e(report.short(bar.value))}</td><td>{e(bar.wanted)}</td><td>{verdict}</td><td>{e(bar.detail)}</td></tr>")
    if not rows:
        return ""
    return (f"<section><h2>Bars of {e(engine)}</h2><div class='scroll'><table><tr><th>what</th><th>measured</th><th>wanted</th><th></th><th></th></tr>"
            + "".join(rows) + "</table></div></section>")


def cards(measured, limit):
    """QEMU's time over the fastest engine's, per group."""
    fastest = next(iter(report.engines(measured)), None)
    if fastest is None or "qemu" not in measured:
        return ""
    out = []
    for group in catalog.GROUPS:
        ratios = figures.group_ratios(measured, group, "qemu", fastest, limit)
        if ratios and group.key not in ("smp", "idle"):
            mean = figures.geometric_mean([r.value for r in ratios.values()])
            out.append(f"<div class='card'><small>{e(group.title)}</small><b>{report.short(mean)}×</b><small>QEMU TCG's time / {e(fastest)}'s,"
                       f" geometric mean of {len(ratios)}</small></div>")
    return f"<div class='cards'>{''.join(out)}</div>" if out else ""


def html(run):
    measured, limit, host = run["measured"], run["options"]["limit"], run["host"]
    legend = "".join(f'<span><i style="background:{COLOURS[s]}"></i>{e(LABELS[s])}</span>' for s in measured)
    body = [f"<h1>Trapline benchmarks</h1><p>{e(run['kernel'])}, {run['memory']} MiB · {e(host['cpu'])}, {host['cpus']} CPUs, Linux {e(host['kernel'])},"
            f" load {host['load_before']} before and {host['load_after']} after · {e(run['date'])}, {run['options']['rounds']} round(s), interleaved, scale"
            f" {run['options']['scale']:g} · {e(run['versions']['qemu'] or 'no QEMU')}</p>", cards(measured, limit), f'<p class="legend">{legend}</p>']
    if figures.checksum_conflicts(measured) or run["failures"]:
        lines = [f"Checksums differ: {w}" for w in figures.checksum_conflicts(measured)] + run["failures"]
        body.append("<section><h2 class='miss'>Failed</h2><ul>" + "".join(f"<li>{e(line)}</li>" for line in lines) + "</ul></section>")
    for engine in report.engines(measured):
        body.append(bars(measured, engine, limit))
    for group in catalog.GROUPS:
        rows = report.group_table(measured, group, limit)
        if rows and group.key != "idle":
            body.append(f"<section><h2>{e(group.title)}</h2>{plot(measured, group, limit)}{table(rows)}</section>")
    others = report.other_figures(measured, limit)
    if others:
        body.append("<section><h2>Further</h2><ul>" + "".join(f"<li>{e(line)}</li>" for line in others) + "</ul></section>")
    body.append("<section><h2>Not run</h2><ul>" + "".join(f"<li>{e(line)}</li>" for line in run["not_run"] or ["nothing was left out"]) + "</ul></section>")
    return ("<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
            f"<title>Trapline benchmarks</title><style>{STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n")
