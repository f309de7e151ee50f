#!/usr/bin/env python3
"""install_test.py BUILD_DIRECTORY: `cmake --install` puts things where the system looks for them."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BUILD = sys.argv.pop(1)


class Install(unittest.TestCase):
    def test_prefix_and_destdir(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            environment = {**os.environ, "DESTDIR": folder}
            subprocess.run(
                ["cmake", "--install", BUILD, "--prefix", "/opt/t"], env=environment, check=True, capture_output=True
            )
            prefix = root / "opt/t"
            self.assertEqual([p.name for p in root.iterdir()], ["opt"])  # nothing beside it
            executable = prefix / "bin/trapline"
            version = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
            self.assertRegex(version, r"^trapline \d+\.\d+\.\d+\n$")
            self.assertTrue((prefix / "share/man/man1/trapline.1").is_file())
            self.assertIn(version.strip(), (prefix / "share/man/man1/trapline.1").read_text())
            for shell, path in (
                ("bash", "share/bash-completion/completions/trapline"),
                ("zsh", "share/zsh/site-functions/_trapline"),
            ):
                now = subprocess.run([executable, "completion", shell], capture_output=True, text=True).stdout
                self.assertEqual((prefix / path).read_text(), now)


if __name__ == "__main__":
    unittest.main()
