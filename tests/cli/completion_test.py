#!/usr/bin/env python3
"""completion_test.py EXECUTABLE: the completions of bash and zsh know what `trapline help` knows, in real shells."""
import re
import subprocess
import sys
import tempfile
import unittest

EXECUTABLE = sys.argv.pop(1)


def output(*words):
    return subprocess.run([EXECUTABLE, *words], capture_output=True, text=True, check=True).stdout


def commands():
    """The commands that `trapline help` lists."""
    listed = re.split(r"ommands:\n", output("help"))[1]
    return re.findall(r"^  (\w+)", listed, re.MULTILINE)


def options(command):
    """The options of a command, as its help lists them."""
    return set(re.findall(r"^  (?:-\w,)?(--[\w-]+)", output("help", command), re.MULTILINE))


def working():
    """Those with options of their own."""
    return [c for c in commands() if c not in ("help", "version")]


class Bash(unittest.TestCase):
    def complete(self, line):
        """What bash offers for the last word of `line`, which is split at blanks and before and behind "="."""
        words = [w for w in re.split(r"(=)|\s", line) if w is not None]
        script = (
            f'{output("completion", "bash")}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _trapline; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True)
        self.assertEqual(done.stderr.replace("bash: line 1: ", ""), "", line)
        return set(done.stdout.split())

    def test_commands(self):
        self.assertGreaterEqual(len(commands()), 6)
        offered = self.complete("trapline ")
        self.assertEqual(offered, {*commands(), "--help", "--version"})
        self.assertEqual(self.complete("trapline do"), {"doctor"})
        self.assertEqual(self.complete("trapline help is"), {"isa"})

    def test_options_are_those_of_help(self):
        for command in working():
            offered = {w for w in self.complete(f"trapline {command} --") if w.startswith("--")}
            self.assertEqual(offered, options(command), command)

    def test_values(self):
        self.assertEqual(self.complete("trapline run --engine "), {"auto", "interpret", "patch", "translate"})
        self.assertEqual(self.complete("trapline run --engine=tr"), {"translate"})
        self.assertEqual(self.complete("trapline run --engine="), {"auto", "interpret", "patch", "translate"})
        self.assertEqual(self.complete("trapline run --clock i"), {"instructions"})
        self.assertEqual(self.complete("trapline run --console "), {"serial", "vga"})
        self.assertIn("seabios", self.complete("trapline run --firmware sea"))
        self.assertEqual(self.complete("trapline run --trace mmu,ex"), {"mmu,exits", "mmu,exceptions"})
        self.assertEqual(self.complete("trapline run --cpus "), set())
        self.assertEqual(self.complete("trapline fuzz --bits "), {"16", "32", "64"})
        self.assertEqual(self.complete("trapline completion "), {"bash", "zsh"})

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            open(f"{folder}/vmlinuz", "w").close()
            for line in ("run ", "run --kernel ", "run --kernel=", "scan ", "run --module ", "run --gdb "):
                self.assertEqual(self.complete(f"trapline {line}{folder}/vm"), {f"{folder}/vmlinuz"}, line)
            self.assertEqual(self.complete(f"trapline isa {folder}/vm"), set())


class Zsh(unittest.TestCase):
    def test_it_is_what_zsh_takes(self):
        with tempfile.NamedTemporaryFile("w", suffix="_trapline") as file:
            file.write(output("completion", "zsh"))
            file.flush()
            done = subprocess.run(["zsh", "-f", "-n", file.name], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_it_offers_what_help_lists(self):
        # _arguments, _describe and _files are replaced: what they are given is printed.
        script = """
_arguments() { print -rl -- "$@" }
_describe() { print -rl -- "${(@P)2}" }
words=(trapline "$1" --); CURRENT=$2
source "$3"
"""
        with tempfile.NamedTemporaryFile("w", suffix="_trapline") as file:
            file.write(output("completion", "zsh"))
            file.flush()

            def offered(command, at):
                done = subprocess.run(
                    ["zsh", "-f", "-c", script, "zsh", command, str(at), file.name], capture_output=True, text=True
                )
                self.assertEqual(done.stderr, "")
                return done.stdout.splitlines()

            self.assertEqual({line.split(":")[0] for line in offered("", 2)}, set(commands()))
            for command in working():
                specs = offered(command, 3)
                names = {m[1] for spec in specs if (m := re.match(r"\*?(--[\w-]+)", spec))}
                self.assertEqual(names, options(command), command)
                for spec in specs:  # brackets and colons of descriptions are escaped
                    if spec.startswith("-"):
                        self.assertRegex(spec, r"^--?[\w-]+[=+]?\[([^\[\]:\\]|\\.)+\](:.*)?$")


class Words(unittest.TestCase):
    def test_another_shell_is_refused(self):
        for words, text in ((["fish"], "completion: fish: no such shell"), ([], "completion: no shell")):
            done = subprocess.run([EXECUTABLE, "completion", *words], capture_output=True, text=True)
            self.assertEqual(done.returncode, 2)
            self.assertIn(text, done.stderr)


if __name__ == "__main__":
    unittest.main()
