"""From measurements to figures: medians, ratios with their spread, geometric means, and bars."""
import dataclasses
import math
import statistics

from . import catalog


def geometric_mean(values):
    return math.exp(sum(math.log(v) for v in values) / len(values)) if values else None


@dataclasses.dataclass
class Summary:
    """Of one workload on one system, over the rounds."""
    median: float | None = None
    low: float | None = None
    high: float | None = None
    runs: int = 0
    over: float | None = None  # it took longer than this

    @property
    def seconds(self):
        return self.median if self.median is not None else self.over


def summarize(results, limit):
    """results: of the rounds, in order; None where a round has none."""
    times = [r.seconds for r in results if r is not None and r.status == "ok"]
    if times:
        return Summary(statistics.median(times), min(times), max(times), len(times))
    return Summary(over=limit) if any(r is not None and r.status == "over" for r in results) else Summary()


@dataclasses.dataclass
class Ratio:
    value: float
    low: float | None = None  # over the rounds in which both ran
    high: float | None = None
    bound: str = ""           # ">" or "<" if one side went over its limit


def ratio(numerator, denominator, limit):
    """Ratio of two systems' times; each a list of results by round."""
    a, b = summarize(numerator, limit), summarize(denominator, limit)
    if a.seconds is None or b.seconds is None or b.seconds == 0 or (a.over and b.over):
        return None
    both = [x.seconds / y.seconds for x, y in zip(numerator, denominator) if x and y and x.status == y.status == "ok"]
    bound = ">" if a.over else "<" if b.over else ""
    return Ratio(a.seconds / b.seconds, min(both) if len(both) > 1 else None, max(both) if len(both) > 1 else None, bound)


@dataclasses.dataclass
class Bar:
    name: str
    wanted: str
    value: float | None
    met: bool | None  # None: not measured
    detail: str = ""


def group_bars(group, ratios, ran):
    """Bars of a group from its ratios by workload. A mean over a part of the group is no pass."""
    bars = []
    missing = [w for w in group.workloads if w not in ratios]
    note = f"without {', '.join(missing)}" if missing else ""
    if group.mean_bar is not None:
        mean = geometric_mean([r.value for r in ratios.values()])
        met = None if mean is None or not ran else mean >= group.mean_bar and (not missing or None)
        bars.append(Bar(f"{group.title}: geometric mean", f"at least {group.mean_bar:g}", mean, met, note))
    if group.each_bar is not None:
        worst = min(ratios.items(), key=lambda item: item[1].value, default=None)
        value = worst[1].value if worst else None
        met = None if worst is None else False if value < group.each_bar else None if missing else True
        bars.append(Bar(f"{group.title}: smallest", f"at least {group.each_bar:g}", value, met, (worst[0] if worst else "") + (" " + note if note else "")))
    return bars


def at_most(name, value, bar, unit=""):
    return Bar(name, f"at most {bar:g}{unit}", value, None if value is None else value <= bar)


def at_least(name, value, bar):
    return Bar(name, f"at least {bar:g}", value, None if value is None else value >= bar)


def scaling(results, limit):
    one, two = (summarize(results.get(w, []), limit).median for w in ("smp-one", "smp-two"))
    return 2 * one / two if one and two else None


def idle_cpus(results):
    used = [r.extra["host_cpus"] for r in results if r is not None and "host_cpus" in r.extra]
    return statistics.median(used) if used else None


def bochs_rate(measured):
    """Million guest instructions per second: what its log states, or else, since not every build states it, Trapline's count of the same
    kernel's instructions over Bochs' time from the boot loader's hand-over to /init."""
    boots = measured["bochs"].get("boot-to-init", [])
    stated, seconds = extra_median(boots, "mips"), extra_median(boots, "kernel_to_init")
    count = next((n for s in measured if (n := extra_median(measured[s].get("boot-to-init", []), "instructions"))), None)
    return stated or (count / seconds / 1e6 if count and seconds else None)


def engine_bars(measured, engine, limit):
    """Every bar of an engine. measured: {system: {workload: [result by round]}}."""
    own, bars = measured[engine], []
    if engine == "interpret":
        if "bochs" in measured:
            boot = ratio(measured["bochs"].get("boot-to-init", []), own.get("boot-to-init", []), limit)
            bars.append(at_least("Boot to /init: Bochs' time / interpret's", boot and boot.value, 1))
            rates = [extra_median(own.get("boot-to-init", []), "mips"), bochs_rate(measured)]
            bars.append(at_least("Guest instructions per second: interpret / Bochs", rates[0] / rates[1] if all(rates) else None, 1))
        return bars
    for group in catalog.GROUPS:
        if group.mean_bar is not None or group.each_bar is not None:
            bars += group_bars(group, group_ratios(measured, group, "qemu", engine, limit), "qemu" in measured)
    bars.append(at_least("Two vCPUs: computing, times one", scaling(own, limit), catalog.SCALING_BAR))
    for workload in ("smp-spin", "smp-wake"):
        r = ratio(own.get(workload, []), measured.get("native", {}).get(workload, []), limit)
        bars.append(at_most(f"Two vCPUs: {workload}, times the host's own threads", r and r.value, catalog.NATIVE_BAR))
    bars.append(at_most("Idle guest: host CPUs", idle_cpus(own.get("idle", [])), catalog.IDLE_BAR))
    return bars + para_bars(measured, engine, limit)


def para_bars(measured, engine, limit):
    """What another hypervisor's interface brings: --para none's time over its."""
    def ratios(group, para):
        return group_ratios(measured, next(g for g in catalog.GROUPS if g.key == group), f"{engine}/none", para, limit)
    xen, bars = f"{engine}/xen", []
    if f"{engine}/none" in measured and xen in measured:
        kernel, boot = ratios("kernel", xen), ratios("boot", xen).get("boot-to-init")
        mean, each, to_init = catalog.PARA_BARS
        some = [kernel[w].value for w in catalog.PARA_WORKLOADS if w in kernel]
        bars.append(at_least("Xen PV, none / xen: fork, exec, mmap", geometric_mean(some), mean))
        smallest = min(kernel.items(), key=lambda item: item[1].value, default=(None, None))
        bars.append(at_least("Xen PV, none / xen: smallest, kernel-heavy", smallest[1] and smallest[1].value, each))
        bars[-1].detail = smallest[0] or ""
        bars.append(at_least("Xen PV, none / xen: boot to /init", boot and boot.value, to_init))
    if f"{engine}/none" in measured and engine in measured:
        boot = ratios("boot", engine).get("boot-to-init")
        bars.append(at_least("KVM's interface, none / kvm: boot to /init", boot and boot.value, 1))
    return bars


def group_ratios(measured, group, numerator, denominator, limit):
    found = {}
    for workload in group.workloads:
        r = ratio(measured.get(numerator, {}).get(workload, []), measured.get(denominator, {}).get(workload, []), limit)
        if r is not None:
            found[workload] = r
    return found


def extra_median(results, key):
    values = [r.extra[key] for r in results if r is not None and key in r.extra]
    return statistics.median(values) if values else None


def checksum_conflicts(measured):
    """Workloads whose checksums are not one and the same: {workload: {checksum: [system, ...]}}."""
    seen = {}
    for system, workloads in measured.items():
        for workload, results in workloads.items():
            for r in results:
                if r is not None and r.checksum is not None:
                    systems = seen.setdefault(workload, {}).setdefault(r.checksum, [])
                    if system not in systems:
                        systems.append(system)
    return {w: sums for w, sums in seen.items() if len(sums) > 1}


def clock_errors(measured):
    """Runs in which the guest's clock and this machine's differ by more than a twentieth and 10 ms."""
    found = []
    for system, workloads in measured.items():
        for workload, results in workloads.items():
            for r in results:
                if r is not None and r.status == "ok" and r.guest_seconds is not None and abs(r.seconds - r.guest_seconds) > 0.05 * r.seconds + 0.01:
                    found.append((system, workload, r.seconds, r.guest_seconds))
    return found
