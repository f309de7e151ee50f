#!/usr/bin/env python3
"""Holds the includes and the link lines of src/ against the tables of layers in docs/architecture.md.

A folder of src/ may include itself and what its row names, nothing else. Fails on an include that the table does not
allow, on a folder without a row, on a row that nobody uses, and on a cycle. Where folders inside one have rows too
(`engine/emit`), the same holds among those; the headers beside them are for all of them and include none, and the
sources beside them put all together.
"""
import pathlib
import re
import sys

ROW = re.compile(r"^\| `([\w/]+)` \|.*\| ([^|]*) \|$")
INCLUDE = re.compile(r'^\s*#\s*include\s+"(\w+)/(?:(\w+)/)?', re.MULTILINE)
LINK = re.compile(r"\btrapline_(\w+)")
SOURCES = {".h", ".cpp", ".inc", ".S"}


def table(text):
    """Folder -> the set of folders that it may include."""
    section = text.partition("\n## Folders\n")[2].partition("\n## ")[0]
    rows = {}
    for line in section.splitlines():
        if match := ROW.match(line):
            rows[match[1]] = set(re.findall(r"`([\w/]+)`", match[2]))
    return rows


def cycle(rows):
    """A folder that reaches itself, or None."""
    for start in rows:
        seen, todo = set(), list(rows[start])
        while todo:
            folder = todo.pop()
            if folder == start:
                return start
            if folder not in seen:
                seen.add(folder)
                todo += rows.get(folder, ())
    return None


def uses(folder, layers):
    """(file, line or None, layer) for each layer that a file of this folder includes or links."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in SOURCES:
            text = path.read_text()
            for match in INCLUDE.finditer(text):
                if match[1] in layers:
                    yield path, text.count("\n", 0, match.start(1)) + 1, match[1]
        elif path.name == "CMakeLists.txt":
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if "target_link_libraries" in line or line.startswith(" "):
                    for name in LINK.findall(line):
                        if name in layers:
                            yield path, number, name


def inner_faults(root, outer, rows):
    """Of the folders inside one whose rows are named `outer/inner`."""
    inner = {p.name for p in (root / "src" / outer).iterdir() if p.is_dir()}
    named = {name.partition("/")[2]: {o.partition("/")[2] for o in allowed} for name, allowed in rows.items()}
    found = [f"src/{outer}/{n}: no row in docs/architecture.md: add one" for n in sorted(inner - named.keys())]
    found += [f"docs/architecture.md: a row for {outer}/{n}, which is no folder" for n in sorted(named.keys() - inner)]
    if start := cycle(named):
        found.append(f"docs/architecture.md: {outer}/{start} uses itself by way of others")
    used = set()
    for path in sorted((root / "src" / outer).rglob("*")):
        if path.suffix not in SOURCES:
            continue
        parts = path.relative_to(root / "src" / outer).parts
        name = parts[0] if len(parts) > 1 else None
        if name is None and path.suffix == ".cpp":
            continue
        allowed = named.get(name, set()) | {name}
        text = path.read_text()
        for match in INCLUDE.finditer(text):
            if match[1] != outer or match[2] not in inner:
                continue
            used.add((name, match[2]))
            if match[2] not in allowed:
                where = f"{path.relative_to(root)}:{text.count(chr(10), 0, match.start(1)) + 1}"
                found.append(f"{where}: {outer}/{name or '*.h'} may not use {outer}/{match[2]}: docs/architecture.md")
    for name, allowed in sorted(named.items()):
        for other in sorted(allowed):
            if (name, other) not in used:
                found.append(f"docs/architecture.md: {outer}/{name} does not use {outer}/{other}: take it out of the row")
    return found


def faults(root):
    rows = table((root / "docs/architecture.md").read_text())
    inner = {}
    for name in [n for n in rows if "/" in n]:
        inner.setdefault(name.partition("/")[0], {})[name] = rows.pop(name)
    folders = sorted(p for p in (root / "src").iterdir() if p.is_dir())
    layers = {p.name for p in folders}
    found = []
    for outer, folders_inside in sorted(inner.items()):
        found += inner_faults(root, outer, folders_inside)
    for name in sorted(layers - rows.keys()):
        found.append(f"src/{name}: no row in the table of docs/architecture.md: add one")
    for name in sorted(rows.keys() - layers):
        found.append(f"docs/architecture.md: a row for {name}, which is no folder of src/: take it out")
    for name, allowed in sorted(rows.items()):
        for other in sorted(allowed - layers):
            found.append(f"docs/architecture.md: {name} uses {other}, which is no folder of src/")
    if start := cycle(rows):
        found.append(f"docs/architecture.md: {start} uses itself by way of others")
    for folder in folders:
        allowed = rows.get(folder.name, layers)
        unused = set(allowed)
        for path, line, layer in uses(folder, layers):
            unused.discard(layer)
            if layer != folder.name and layer not in allowed:
                where = f"{path.relative_to(root)}:{line}"
                found.append(f"{where}: {folder.name} may not use {layer}: see the table of docs/architecture.md")
        for other in sorted(unused & layers - {folder.name}):
            if folder.name in rows:
                found.append(f"docs/architecture.md: {folder.name} does not use {other}: take it out of the row")
    return found


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    found = faults(root)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
