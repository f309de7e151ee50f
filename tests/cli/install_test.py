#!/usr/bin/env python3
"""install_test.py BUILD_DIRECTORY: `cmake --install` puts things where the system looks for them."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
import unittest

BUILD = sys.argv.pop(1)
SOURCE = pathlib.Path(__file__).resolve().parents[2]
KERNELS = SOURCE / ".cache/kernels"


def snippets():
    """The scripts of the guide's steps for CI systems, by the way they are written down."""
    text = (SOURCE / "docs/guide/command.md").read_text()
    actions = re.search(r"^- run: \|\n((?:    .*\n)+)", text, re.M).group(1)
    gitlab = re.search(r"^  script:\n((?:    - .*\n)+)", text, re.M).group(1)
    return textwrap.dedent(actions), re.sub(r"^    - ", "", gitlab, flags=re.M)


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

    @unittest.skipUnless((KERNELS / "amd64/modules.list").exists(), "scripts/guest-kernel.sh amd64 fetches it")
    def test_the_guides_steps_for_ci(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            subprocess.run(["cmake", "--install", BUILD, "--prefix", root / "usr"], check=True, capture_output=True)
            project, data = root / "project", root / "home/.local/share/trapline"
            project.mkdir()
            data.mkdir(parents=True)
            (data / "kernels").symlink_to(KERNELS)  # so that nothing is fetched
            (project / "Makefile").write_text("check:\n\t@echo checked on $$(nproc) CPUs; touch made\n")
            environment = {"PATH": f"{root}/usr/bin:/usr/bin:/bin", "HOME": f"{root}/home"}
            for script in snippets():
                self.assertIn("trapline exec", script)
                script = script.replace("/usr/share/trapline/", f"{root}/usr/share/trapline/")
                done = subprocess.run(
                    ["sh", "-ec", script], cwd=project, env=environment, capture_output=True, text=True, timeout=300
                )
                self.assertEqual((done.returncode, done.stdout), (0, "checked on 2 CPUs\n"), done.stderr)
                (project / "made").unlink()


if __name__ == "__main__":
    unittest.main()
