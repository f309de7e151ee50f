"""What the guests run: the runner compiled, the tree of real programs, and both packed as initrds (cpio newc, uncompressed, so that unpacking
them does not dominate a boot)."""
import hashlib
import os
import pathlib
import shutil
import subprocess

BENCH = pathlib.Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
CACHE = pathlib.Path(os.environ.get("TRAPLINE_CACHE", ROOT / ".cache"))
WORK = CACHE / "bench"
SOURCES = ["cpu", "memory", "float", "kernel", "mixed", "smp", "ports", "programs", "console", "main"]
# No vectorization and no contraction: a workload uses the instructions that its source says, and computes the same everywhere.
FLAGS = ["-std=gnu11", "-O2", "-fno-tree-vectorize", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-pthread"]

BINARIES = ["usr/bin/gzip", "usr/bin/xz", "usr/bin/sort", "usr/bin/openssl", "usr/bin/sqlite3", "usr/bin/perl", "usr/bin/python3.11",
            "usr/bin/x86_64-linux-gnu-gcc-12", "usr/lib/gcc/x86_64-linux-gnu/12/cc1", "usr/bin/x86_64-linux-gnu-as"]
DATA = ["usr/lib/python3.11", "usr/lib/x86_64-linux-gnu/perl-base"]


class ImageError(Exception):
    pass


def newer(result, inputs):
    return result.exists() and all(result.stat().st_mtime >= i.stat().st_mtime for i in inputs)


def compile_guest():
    """The runner and the helper programs, in WORK. Returns their directory."""
    sources = [BENCH / "guest" / f"{name}.c" for name in SOURCES]
    inputs = list((BENCH / "guest").glob("*.[ch]")) + [pathlib.Path(__file__)]
    target = WORK / "bin"
    target.mkdir(parents=True, exist_ok=True)
    if not newer(target / "workloads", inputs):
        nothing = str(BENCH / "guest/nothing.c")
        for options, files, result in ((["-static"], [nothing], "nothing-static"), ([], [nothing], "nothing-dynamic"),
                                       (["-static"], [str(s) for s in sources], "workloads")):
            subprocess.run(["gcc", *FLAGS, *options, "-o", str(target / result), *files], check=True)
    return target


def cpio_entry(name, mode, data, number):
    encoded = name.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0]
    head = b"070701" + b"".join(b"%08X" % f for f in fields) + encoded
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def write_cpio(path, entries):
    """entries: (name in the guest, source): a pathlib.Path, bytes, or None for a directory. Links stay links."""
    with open(f"{path}.new", "wb") as out:
        number = 0
        for number, (name, source) in enumerate(entries):
            if source is None:
                out.write(cpio_entry(name, 0o040755, b"", number))
            elif isinstance(source, pathlib.Path) and source.is_symlink():
                out.write(cpio_entry(name, 0o120777, os.readlink(source).encode(), number))
            else:
                out.write(cpio_entry(name, 0o100755, source if isinstance(source, bytes) else source.read_bytes(), number))
        out.write(cpio_entry("TRAILER!!!", 0, b"", number + 1))
    os.replace(f"{path}.new", path)


def needed_libraries(binary):
    text = subprocess.run(["readelf", "-dW", str(binary)], check=True, capture_output=True, text=True).stdout
    return [line.split("[")[1].rstrip("]") for line in text.splitlines() if "(NEEDED)" in line]


def base_entries(binaries):
    entries = [(d, None) for d in ("bench", "dev", "proc", "tmp", "root")]
    entries += [("init", binaries / "workloads")]
    return entries + [(f"bench/{name}", binaries / name) for name in ("nothing-static", "nothing-dynamic")]


def micro_initrd():
    """The runner, and this machine's C library for the dynamic helper."""
    binaries, result = compile_guest(), WORK / "micro.cpio"
    loader = pathlib.Path("/lib64/ld-linux-x86-64.so.2").resolve()
    library = loader.parent / "libc.so.6"
    if not newer(result, [binaries / "workloads", pathlib.Path(__file__), library]):
        entries = base_entries(binaries) + [("lib64", None), ("lib", None), ("lib/x86_64-linux-gnu", None)]
        entries += [("lib64/ld-linux-x86-64.so.2", loader.read_bytes()), ("lib/x86_64-linux-gnu/libc.so.6", library.read_bytes())]
        write_cpio(result, entries)
    return result


def find_in(packages, path):
    """Debian's packages still name /bin and /lib; the tree has them in /usr."""
    for candidate in (packages / path, packages / path.removeprefix("usr/")):
        if candidate.exists() or candidate.is_symlink():
            return candidate
    raise ImageError(f"the guest's packages hold no {path}: remove {packages} and run again")


def copy_with_libraries(packages, tree, path, done):
    if path in done:
        return
    done.add(path)
    source = find_in(packages, path)
    target = tree / path
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()
    if not str(real).startswith(str(packages.resolve())):  # an absolute link
        real = find_in(packages, "usr/" + os.readlink(source).lstrip("/").removeprefix("usr/"))
    shutil.copy(real, target)
    target.chmod(0o755)
    for name in needed_libraries(target):
        if name.startswith("ld-linux"):
            continue
        copy_with_libraries(packages, tree, f"usr/lib/x86_64-linux-gnu/{name}", done)


def programs_tree():
    """A directory that is the guest's root: usable with chroot on this machine too."""
    packages, tree = WORK / "packages", WORK / "tree"
    subprocess.run([str(BENCH / "packages.sh"), str(packages)], check=True)
    busybox = CACHE / "busybox-amd64/bin/busybox"
    inputs = [packages / ".packages", pathlib.Path(__file__), BENCH / "guest/programs", *(BENCH / "guest/programs").iterdir()]
    stamp = WORK / "tree.stamp"
    if newer(stamp, inputs):
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    for directory in ("usr/bin", "usr/lib64", "usr/lib/x86_64-linux-gnu", "bench", "dev", "proc", "tmp", "root", "etc"):
        (tree / directory).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    done = set()
    for path in BINARIES:
        copy_with_libraries(packages, tree, path, done)
    shutil.copy(find_in(packages, "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"), tree / "usr/lib64/ld-linux-x86-64.so.2")
    for path in DATA:
        shutil.copytree(find_in(packages, path), tree / path, symlinks=True, dirs_exist_ok=True)
    (tree / "usr/bin/as").symlink_to("x86_64-linux-gnu-as")
    shutil.copy(busybox, tree / "usr/bin/busybox")
    for source in (BENCH / "guest/programs").iterdir():
        shutil.copy(source, tree / "bench" / source.name)
    stamp.touch()
    return tree


def programs_initrd():
    binaries, tree, result = compile_guest(), programs_tree(), WORK / "programs.cpio"
    if not newer(result, [binaries / "workloads", WORK / "tree.stamp", pathlib.Path(__file__)]):
        entries = base_entries(binaries)
        seen = {name for name, _ in entries}
        for path in sorted(tree.rglob("*")):
            name = str(path.relative_to(tree))
            if name not in seen and not name.startswith("tmp/"):
                entries.append((name, path if path.is_symlink() or path.is_file() else None))
        write_cpio(result, entries)
    return result


def digest(*parts):
    return hashlib.sha256("\0".join(str(p) for p in parts).encode()).hexdigest()[:16]
