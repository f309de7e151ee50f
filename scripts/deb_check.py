#!/usr/bin/env python3
"""deb_check.py PACKAGE EXECUTABLE: is the Debian package whole? Prints what is wrong; 1 if anything is."""
import re
import subprocess
import sys

FILES = """
usr/bin/trapline
usr/share/man/man1/trapline.1.gz
usr/share/bash-completion/completions/trapline
usr/share/zsh/vendor-completions/_trapline
usr/share/doc/trapline/copyright
usr/share/doc/trapline/README.md
usr/share/doc/trapline/docs/architecture.md
""".split()


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def owner(library):
    """The package of a shared library, by the path that the loader takes."""
    path = library if not library.startswith("/lib/") else "/usr" + library
    for candidate in (library, path):
        found = subprocess.run(["dpkg", "-S", candidate], capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.split(":")[0]
    return None


def main():
    package, executable = sys.argv[1:3]
    wrong = []
    fields = dict(re.findall(r"^ ?(\S+): (.*)$", output("dpkg-deb", "-f", package), re.MULTILINE))
    for field in ("Package", "Version", "Architecture", "Maintainer", "Section", "Depends", "Description"):
        if not fields.get(field):
            wrong.append(f"no {field}")
    depends = {re.split(r"[ (|]", d.strip())[0] for d in fields.get("Depends", "").split(",")}
    # Every library that the executable names itself comes with a package that the package depends on.
    needed = set(re.findall(r"NEEDED\s+(\S+)", output("objdump", "-p", executable)))
    for name, path in re.findall(r"(\S+) => (/\S+)", output("ldd", executable)):
        if name in needed and (library := owner(path)) not in depends:
            wrong.append(f"{name} is of {library}, which is not in Depends: {fields.get('Depends')}")
    held = {}
    for line in output("dpkg-deb", "-c", package).splitlines():
        mode, user, _size, _day, _time, path = line.split(None, 5)
        held[path.removeprefix("./").rstrip("/")] = mode
        if user != "root/root":
            wrong.append(f"{path} is of {user}, not of root/root")
        if mode[5] == "w" or mode[8] == "w":
            wrong.append(f"{path} may be written by others: {mode}")
    wrong += [f"{path} is not in it" for path in FILES if path not in held]
    if not held.get("usr/bin/trapline", "").startswith("-rwxr-xr-x"):
        wrong.append(f"usr/bin/trapline has mode {held.get('usr/bin/trapline')}")
    for line in wrong:
        print(f"{package}: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
