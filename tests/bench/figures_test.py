"""Medians, ratios, geometric means, bars."""
import unittest

from support import ok, over
from harness import catalog, figures


class Summaries(unittest.TestCase):
    def test_median_and_range_of_the_rounds_that_ran(self):
        s = figures.summarize(ok(3.0, 1.0, None, 2.0), 60)
        self.assertEqual((s.median, s.low, s.high, s.runs, s.over), (2.0, 1.0, 3.0, 3, None))

    def test_over_the_limit(self):
        s = figures.summarize(over(), 60)
        self.assertEqual((s.median, s.over, s.seconds), (None, 60, 60))

    def test_nothing(self):
        self.assertIsNone(figures.summarize([None, None], 60).seconds)
        self.assertIsNone(figures.summarize([], 60).seconds)


class Ratios(unittest.TestCase):
    def test_of_medians_with_the_spread_over_paired_rounds(self):
        r = figures.ratio(ok(10.0, 12.0, 8.0), ok(2.0, 2.0, 4.0), 60)
        self.assertEqual((r.value, r.low, r.high, r.bound), (5.0, 2.0, 6.0, ""))

    def test_no_spread_from_one_common_round(self):
        r = figures.ratio(ok(10.0, 12.0), ok(2.0, None), 60)
        self.assertEqual((r.value, r.low), (5.5, None))

    def test_a_side_over_its_limit_bounds_the_ratio(self):
        self.assertEqual(figures.ratio(over(), ok(2.0), 60), figures.Ratio(30, bound=">"))
        self.assertEqual(figures.ratio(ok(6.0), over(), 60), figures.Ratio(0.1, bound="<"))
        self.assertIsNone(figures.ratio(over(), over(), 60))

    def test_without_a_side_there_is_none(self):
        self.assertIsNone(figures.ratio([], ok(1.0), 60))
        self.assertIsNone(figures.ratio(ok(1.0), ok(0.0), 60))


class Means(unittest.TestCase):
    def test_geometric(self):
        self.assertAlmostEqual(figures.geometric_mean([2, 8]), 4)
        self.assertIsNone(figures.geometric_mean([]))


def group(key):
    return next(g for g in catalog.GROUPS if g.key == key)


def measured_with(ratio, only=None):
    workloads = [w for g in catalog.GROUPS for w in g.workloads if only is None or w in only]
    return {"native": {w: ok(1.0) for w in workloads}, "translate": {w: ok(2.0) for w in workloads}, "qemu": {w: ok(2.0 * ratio) for w in workloads}}


def verdicts(measured, engine="translate"):
    return {bar.name: bar.met for bar in figures.engine_bars(measured, engine, 60)}


class Bars(unittest.TestCase):
    def test_met_and_missed_by_the_mean(self):
        self.assertIs(verdicts(measured_with(4.1))["Real programs: geometric mean"], True)
        self.assertIs(verdicts(measured_with(3.9))["Real programs: geometric mean"], False)
        self.assertIs(verdicts(measured_with(14))["Floating point: geometric mean"], False)

    def test_one_slow_workload_misses_the_bar_of_the_smallest(self):
        measured = measured_with(10)
        measured["qemu"]["sort"] = ok(2.8)
        bars = {b.name: b for b in figures.engine_bars(measured, "translate", 60)}
        smallest = bars["Real programs: smallest"]
        self.assertIs(smallest.met, False)
        self.assertAlmostEqual(smallest.value, 1.4)
        self.assertEqual(smallest.detail, "sort")
        self.assertIs(bars["Real programs: geometric mean"].met, True)

    def test_a_part_of_a_group_is_no_pass_but_can_be_a_miss(self):
        part = measured_with(10, only=["gzip", "xz"])
        self.assertIsNone(verdicts(part)["Real programs: geometric mean"])
        self.assertIsNone(verdicts(part)["Real programs: smallest"])
        self.assertIs(verdicts(measured_with(1.2, only=["gzip"]))["Real programs: smallest"], False)
        self.assertIsNone(verdicts(part)["Kernel-heavy: smallest"])

    def test_an_engine_that_never_ends_misses(self):
        measured = measured_with(10)
        measured["translate"]["alu"] = over()
        self.assertIs(verdicts(measured)["Integer and memory: smallest"], False)

    def test_scaling(self):
        self.assertAlmostEqual(figures.scaling({"smp-one": ok(1.0), "smp-two": ok(1.1)}, 60), 2 / 1.1)
        measured = measured_with(10)
        self.assertIs(verdicts(measured)["Two vCPUs: computing, times one"], True)
        measured["translate"]["smp-two"] = ok(2.3)
        self.assertIs(verdicts(measured)["Two vCPUs: computing, times one"], False)

    def test_hand_overs_beside_the_hosts_own(self):
        measured = measured_with(10)
        self.assertIs(verdicts(measured)["Two vCPUs: smp-wake, times the host's own threads"], True)
        measured["translate"]["smp-wake"] = ok(3.5)
        self.assertIs(verdicts(measured)["Two vCPUs: smp-wake, times the host's own threads"], False)

    def test_idle(self):
        measured = measured_with(10)
        self.assertIsNone(verdicts(measured)["Idle guest: host CPUs"])
        measured["translate"]["idle"] = ok(10.0, host_cpus=0.004)
        self.assertIs(verdicts(measured)["Idle guest: host CPUs"], True)
        measured["translate"]["idle"] = ok(10.0, host_cpus=0.011)
        self.assertIs(verdicts(measured)["Idle guest: host CPUs"], False)

    def test_interpret_is_judged_beside_bochs(self):
        measured = {"interpret": {"boot-to-init": ok(4.0, mips=200.0)}, "bochs": {"boot-to-init": ok(6.0, mips=90.0)}}
        self.assertEqual(list(verdicts(measured, "interpret").values()), [True, True])
        measured["bochs"]["boot-to-init"] = ok(3.0, mips=300.0)
        self.assertEqual(list(verdicts(measured, "interpret").values()), [False, False])

    def test_bochs_rate_without_a_statement_of_its_own(self):
        measured = {"interpret": {"boot-to-init": ok(5.0, mips=200.0, instructions=1_000_000_000)},
                    "bochs": {"boot-to-init": ok(15.0, kernel_to_init=10.0)}}
        self.assertAlmostEqual(figures.bochs_rate(measured), 100)
        self.assertIs(verdicts(measured, "interpret")["Guest instructions per second: interpret / Bochs"], True)
        del measured["bochs"]["boot-to-init"][0].extra["kernel_to_init"]
        self.assertIsNone(figures.bochs_rate(measured))


class Checks(unittest.TestCase):
    def test_checksums_that_differ_are_found(self):
        measured = {"native": {"alu": ok(1.0, checksum="a")}, "qemu": {"alu": ok(1.0, checksum="a")}}
        self.assertEqual(figures.checksum_conflicts(measured), {})
        measured["interpret"] = {"alu": ok(1.0, checksum="b")}
        self.assertEqual(figures.checksum_conflicts(measured), {"alu": {"a": ["native", "qemu"], "b": ["interpret"]}})

    def test_checksums_that_differ_between_rounds_are_found(self):
        rounds = ok(1.0, checksum="a") + ok(1.0, checksum="b")
        self.assertIn("alu", figures.checksum_conflicts({"qemu": {"alu": rounds}}))

    def test_clocks_that_differ_are_found(self):
        measured = {"bochs": {"alu": ok(1.0), "sort": ok(1.0)}}
        measured["bochs"]["sort"][0].guest_seconds = 0.5
        self.assertEqual(figures.clock_errors(measured), [("bochs", "sort", 1.0, 0.5)])


unittest.main()
