"""A small run of the whole harness: the guest computes what this machine computes."""
import json
import os
import pathlib
import subprocess
import sys
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench/bench.py"
OUTPUT = pathlib.Path(os.environ.get("BENCH_OUTPUT", "/tmp"))
WORKLOADS = ["alu", "matrix-sse", "getppid", "exec-dynamic"]


def bench(*options):
    return subprocess.run([sys.executable, "-B", str(BENCH), *options, "--json", str(OUTPUT / "smoke.json"), "--html", str(OUTPUT / "smoke.html")],
                          capture_output=True, text=True, timeout=280)


class Smoke(unittest.TestCase):
    def test_native_and_interpret_agree(self):
        done = bench("--only", ",".join(WORKLOADS), "--systems", "native,interpret", "--rounds", "1", "--scale", "0.02",
                     "--trapline", os.environ["TRAPLINE_EXECUTABLE"])
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        measured = json.loads((OUTPUT / "smoke.json").read_text())["measured"]
        for name in WORKLOADS:
            native, guest = measured["native"][name][0], measured["interpret"][name][0]
            self.assertEqual((native["status"], guest["status"]), ("ok", "ok"), name)
            self.assertEqual(native["checksum"], guest["checksum"], name)
            self.assertGreater(guest["seconds"], 0)
        self.assertIn("<svg", (OUTPUT / "smoke.html").read_text())

    def test_bad_usage(self):
        for options in (["--only", "nonsense"], ["--systems", "nonsense"], ["--rounds", "0"]):
            done = bench(*options)
            self.assertNotEqual(done.returncode, 0, options)
            self.assertNotIn("Traceback", done.stderr)


unittest.main()
