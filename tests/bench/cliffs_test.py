"""Rows of bench/cliffs: what the program says, and their ranking."""
import unittest

import support
from harness import cliffs, report

assert support  # it is imported for the place of harness

SAID = """CLIFF-READY
CLIFF rep movsb-64 3.5000
[    1.0] a line of the kernel
CLIFF-NOT far 32-bit this kernel has no 32-bit code segment
CLIFF align load8 0.1600
CLIFF-DONE
"""


class Rows(unittest.TestCase):
    def test_what_the_program_says(self):
        rows, left_out, done = cliffs.parse(SAID)
        self.assertEqual(rows, {"rep movsb-64": 3.5, "align load8": 0.16})
        self.assertEqual(left_out, ["far 32-bit this kernel has no 32-bit code segment"])
        self.assertTrue(done)

    def test_a_run_that_did_not_come_to_its_end(self):
        self.assertFalse(cliffs.parse(SAID.replace("CLIFF-DONE", ""))[2])

    def test_the_slowest_against_the_machine_come_first_and_the_best_of_all_rounds_counts(self):
        c = cliffs.Cliffs()
        c.add("native", {"a 1": 1.0, "a 2": 10.0}, [])
        c.add("translate", {"a 1": 30.0, "a 2": 40.0, "a 3": 7.0}, [])
        c.add("translate", {"a 1": 90.0, "a 2": 20.0}, [])
        c.add("qemu", {"a 1": 10.0, "a 2": 40.0}, [])
        self.assertEqual(c.ranked("translate"), [("a 1", 30.0, 30.0, 3.0), ("a 2", 20.0, 2.0, 0.5), ("a 3", 7.0, None, None)])
        text = "\n".join(cliffs.lines(c, report.align))
        self.assertIn("over 20 times native: 1; slower than TCG: 1", text)

    def test_every_kind_has_a_description(self):
        self.assertTrue(all(cliffs.KINDS.values()))


unittest.main()
