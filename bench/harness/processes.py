"""What a tree of processes costs this machine, from /proc."""
import pathlib
import re


def tree(pid):
    """The process and its descendants."""
    children = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_seconds(pid):
    """CPU time of all threads: schedstat counts nanoseconds."""
    total = 0
    for process in tree(pid):
        for entry in pathlib.Path(f"/proc/{process}/task").glob("*/schedstat"):
            try:
                total += int(entry.read_text().split()[0])
            except (OSError, IndexError):
                continue
    return total / 1e9


def split_mappings(smaps):
    """(size, pss, name) in KiB of each mapping of a /proc/PID/smaps text."""
    mappings = []
    for line in smaps.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            mappings.append([0, 0, line.split(None, 5)[5] if len(line.split(None, 5)) > 5 else ""])
        elif line.startswith("Size:"):
            mappings[-1][0] = int(line.split()[1])
        elif line.startswith("Pss:"):
            mappings[-1][1] = int(line.split()[1])
    return [tuple(m) for m in mappings]


def memory_overhead(pid, guest_mib):
    """KiB that the processes hold beyond the guest's RAM, and of that RAM. None if /proc does not tell (it needs root for the core).

    Guest RAM is every mapping of a file whose mappings amount to at least nine tenths of the guest's size, or an anonymous one as large."""
    beyond = ram = 0
    for process in tree(pid):
        try:
            mappings = split_mappings(pathlib.Path(f"/proc/{process}/smaps").read_text())
        except PermissionError:
            return None
        except OSError:
            continue
        total = {}
        for size, _, name in mappings:
            if name and not name.startswith("["):
                total[name] = total.get(name, 0) + size
        for size, pss, name in mappings:
            if max(size, total.get(name, 0)) >= guest_mib * 1024 * 9 // 10:
                ram += pss
            else:
                beyond += pss
    return beyond, ram
