#!/usr/bin/env python3
"""lint_tidy.py BUILD_DIRECTORY [--all] [FILE...]: clang-tidy over our sources, several at a time; 1 if it finds anything.

A file that was clean is not looked at again until it, a header of ours that it includes, .clang-tidy or clang-tidy itself
changes: BUILD_DIRECTORY/lint/ holds a stamp named by the hash of all these. --all looks at every file again.
"""
import argparse
import concurrent.futures
import functools
import hashlib
import os
import pathlib
import re
import subprocess
import sys

INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.M)


@functools.lru_cache(maxsize=None)
def read(path):
    data = path.read_bytes()
    return hashlib.sha256(data).digest(), tuple(name.decode() for name in INCLUDE.findall(data))


def closure(source):
    """The file and every file of ours that it includes, directly or not."""
    seen, todo = set(), [source]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in read(path)[1]:
            found = next((p for p in (path.parent / name, pathlib.Path("src") / name) if p.is_file()), None)
            if found:
                todo.append(pathlib.Path(os.path.normpath(found)))
    return sorted(seen)


def stamp_of(source, common):
    h = hashlib.sha256(common)
    for path in closure(source):
        h.update(str(path).encode() + b"\0" + read(path)[0])
    return h.hexdigest()


def tidy(build, source):
    run = subprocess.run(["clang-tidy", "--quiet", "-p", build, str(source)], capture_output=True, text=True)
    return run.returncode, run.stdout, run.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    stamps = pathlib.Path(options.build) / "lint"
    stamps.mkdir(parents=True, exist_ok=True)
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True, check=True).stdout
    common = version + pathlib.Path(".clang-tidy").read_bytes()
    files = options.files or sorted(pathlib.Path("src").rglob("*.cpp"))
    stamp = {f: stamps / stamp_of(f, common) for f in files}
    todo = [f for f in files if options.all or not stamp[f].exists()]
    print(f"clang-tidy: {len(todo)} of {len(files)} files; the others have not changed since they were clean", flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(max(options.jobs, 1)) as pool:
        for source, (code, out, err) in zip(todo, pool.map(lambda f: tidy(options.build, f), todo)):
            if code == 0:
                stamp[source].touch()
                continue
            failed += 1
            print(out or err, flush=True)
    if failed:
        print(f"clang-tidy: findings in {failed} files", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
