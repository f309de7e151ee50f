"""The runner's lines, sessions with programs in place of machines, and what /proc says."""
import os
import subprocess
import sys
import time
import unittest

import support
from harness import processes, session, systems

assert support  # it is imported for the place of harness


def follow(lines, observe=None):
    protocol = session.Protocol(observe)
    for at, text in lines:
        protocol.line(text, at)
    return protocol


class Lines(unittest.TestCase):
    def test_a_workload(self):
        p = follow([(0.5, "BENCH ready"), (1.0, "BENCH start alu\r"), (3.5, "BENCH end alu 2.4900"), (3.6, "BENCH sum alu 00ff"), (3.7, "BENCH done")])
        r = p.results["alu"]
        self.assertEqual((r.status, r.seconds, r.guest_seconds, r.checksum), ("ok", 2.5, 2.49, "00ff"))
        self.assertEqual((p.ready, p.done, p.running), (0.5, 3.7, None))

    def test_other_ends(self):
        p = follow([(1, "BENCH start a"), (2, "BENCH over a"), (3, "BENCH skip b the CPU has no fma"), (4, "BENCH start c"), (5, "BENCH fail c exit status 0x100: no file")])
        self.assertEqual([(n, r.status, r.reason) for n, r in p.results.items()],
                         [("a", "over", None), ("b", "skip", "the CPU has no fma"), ("c", "fail", "exit status 0x100: no file")])

    def test_no_checksum_is_a_failure(self):
        self.assertEqual(follow([(1, "BENCH start a"), (2, "BENCH end a 1.0")]).results["a"].status, "fail")

    def test_other_text_is_ignored(self):
        p = follow([(1, "[    0.1] BENCH start a"), (1, "BENCH"), (1, ""), (2, "BENCH end b 3"), (2, "BENCH sum b 1")])
        self.assertEqual((p.results, p.running), ({}, None))

    def test_the_observer_sees_start_and_end(self):
        seen = []

        def observe(what, name):
            seen.append((what, name))
            return {"figure": 7}
        p = follow([(1, "BENCH start idle"), (2, "BENCH end idle 1"), (2, "BENCH sum idle 0")], observe)
        self.assertEqual(seen, [("start", "idle"), ("end", "idle")])
        self.assertEqual(p.results["idle"].extra, {"figure": 7})


def run_script(script, limit=60, console=None):
    return session.run_session(systems.Started([sys.executable, "-uc", script], console), limit, None)


class Sessions(unittest.TestCase):
    def test_times_are_those_of_this_machine(self):
        p, marks = run_script("import time\nprint('BENCH ready\\nBENCH start a')\ntime.sleep(.3)\nprint('BENCH end a 99')\nprint('BENCH sum a 1')\nprint('BENCH done')")
        self.assertGreaterEqual(p.results["a"].seconds, 0.29)
        self.assertLess(p.results["a"].seconds, 5)
        self.assertEqual(p.results["a"].guest_seconds, 99)
        self.assertIn("end", marks)

    def test_a_workload_over_its_limit_stops_the_machine(self):
        begin = time.monotonic()
        p, marks = run_script("import time\nprint('BENCH ready\\nBENCH start a')\ntime.sleep(100)", limit=-4)
        self.assertTrue(marks["killed"])
        self.assertEqual((p.running, p.results), ("a", {}))
        self.assertLess(time.monotonic() - begin, 50)

    def test_a_machine_that_dies(self):
        p, marks = run_script("import sys\nprint('BENCH ready\\nBENCH start a')\nprint('no luck', file=sys.stderr)\nsys.exit(3)")
        self.assertEqual((p.running, p.done), ("a", None))
        self.assertIn("no luck", marks["errors"])


class Statistics(unittest.TestCase):
    def test_traplines_own_line(self):
        said = "statistics: 1394919149 instructions in 31.280 s: 44.6 MIPS\n  exits: halts 0 0 /s\n"
        self.assertEqual(systems.Trapline.statistics(said), {"instructions": 1394919149, "mips": 44.6})
        self.assertEqual(systems.Trapline.statistics("trapline: no\n"), {})


class Processes(unittest.TestCase):
    def test_cpu_time_counts_descendants(self):
        child = subprocess.Popen(["/bin/sh", "-c", f"{sys.executable} -c 'while True: pass' & echo $!; wait"], stdout=subprocess.PIPE, text=True)
        busy = int(child.stdout.readline())
        try:
            time.sleep(0.5)
            self.assertGreater(processes.cpu_seconds(child.pid), 0.02)
            self.assertIn(busy, processes.tree(child.pid))
        finally:
            os.kill(busy, 9)
            child.wait()
            child.stdout.close()

    def test_mappings(self):
        smaps = ("7f0000000000-7f0040000000 rw-s 00000000 00:01 7    /memfd:guest-ram (deleted)\nSize: 1048576 kB\nPss: 5000 kB\n"
                 "7f0050000000-7f0050001000 rw-p 00000000 00:00 0 \nSize: 4 kB\nPss: 4 kB\nVmFlags: rd wr\n")
        self.assertEqual(processes.split_mappings(smaps), [(1048576, 5000, "/memfd:guest-ram (deleted)"), (4, 4, "")])


unittest.main()
