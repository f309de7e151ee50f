#!/usr/bin/env python3
"""examples_test.py EXECUTABLE SOURCE: the guest author's kit builds, and each of its kernels says what the docs say."""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

EXECUTABLE, SOURCE = sys.argv[1:3]
del sys.argv[1:]
GOOD, BAD, LOST = 33, 35, 1


def engines():
    """Those that this host has: what `compare` says behind a name that it does not know."""
    said = subprocess.run([EXECUTABLE, "compare", "--engines", "none"], capture_output=True, text=True).stderr
    return [way for way in re.search(r"give some of ([\w,/]+), or all", said)[1].split(",") if "/" not in way]


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode, done.stdout.replace("\r", ""), done.stderr


class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.out = pathlib.Path(cls.folder.name)
        subprocess.run(
            ["make", "-s", "-C", SOURCE, f"OUT={cls.out}", f"TRAPLINE={EXECUTABLE}"], check=True, capture_output=True, timeout=100
        )

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def guest(self, engine, para, kernel):
        options = ("--engine", engine, "--para", para, "--memory", "64M", "--timeout", "30")
        return run(EXECUTABLE, "run", *options, str(self.out / kernel))

    def test_in_ring_3_it_goes_wrong(self):
        code, said, why = run(str(self.out / "monitor"), str(self.out / "critical.bin.elf"))
        self.assertEqual(code, LOST)
        for line in ("the interrupt table is mine", "this is ring 0", "off in a critical section"):
            self.assertIn(line + ": WRONG", said)
        self.assertIn("halted with interrupts off", why)

    def test_patched_it_goes_well(self):
        code, said, why = run(str(self.out / "monitor"), str(self.out / "patched.bin.elf"))
        self.assertEqual((code, why), (GOOD, ""))
        self.assertNotIn("WRONG", said)
        self.assertIn("three waits, three ticks: right", said)

    def test_on_every_engine_it_goes_well(self):
        for engine in engines():
            code, said, _ = self.guest(engine, "none", "critical.elf")
            self.assertEqual((code, said.count("WRONG")), (GOOD, 0), engine)

    def test_the_paravirtualized_one_needs_its_hypervisor(self):
        for engine in engines():
            code, said, _ = self.guest(engine, "kvm", "para_kvm.elf")
            self.assertEqual((code, said.count("WRONG")), (GOOD, 0), engine + said)
            self.assertEqual(len(re.findall(r"a hypercall by VMM?CALL: right", said)), 2)
        code, said, _ = self.guest("interpret", "none", "para_kvm.elf")
        self.assertEqual(code, BAD)
        self.assertIn("the hypervisor has KVM's interface: WRONG", said)

    def test_the_one_for_xen_asks_for_everything(self):
        for engine in engines():
            code, said, _ = self.guest(engine, "xen", "para_xen.elf")
            self.assertEqual((code, said.count("WRONG")), (0, 0), engine + said)
            for line in ("three waits, three ticks", "and comes then", "a page that is granted can be copied"):
                self.assertIn(line + ": right", said)
        for para in ("none", "kvm"):
            code, said, why = self.guest("interpret", para, "para_xen.elf")
            self.assertEqual((code, said, len(why.splitlines())), (3, "", 1), why)
            self.assertIn("--para xen", why)

    def test_the_one_for_xen_has_nothing_critical_but_its_clock(self):
        said = run(EXECUTABLE, "scan", "--json", "--ring", "0", "--class", "critical", str(self.out / "para_xen.elf"))[1]
        (image,) = json.loads(said)["images"]
        found = {one["instruction"] for one in image["findings"]}
        self.assertEqual(found, {"rdtsc"})


unittest.main()
