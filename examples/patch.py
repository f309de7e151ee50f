#!/usr/bin/env python3
"""trapline scan --json ... | patch.py KERNEL PATCHED: replaces critical instructions by traps.

Each that the scan has found in KERNEL gets INT3 as its first byte, which traps in every ring. What was there goes into
PATCHED.patches, a record of 32 bytes each: address, length, bytes. The monitor looks there for what to emulate.
"""
import json
import struct
import sys

PT_LOAD = 1


def segments(image):
    """(address, offset in the file, bytes) of what an ELF64 file loads."""
    at, size, count = struct.unpack_from("<Q14xHH", image, 32)
    for i in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", image, at + i * size)
        if kind == PT_LOAD:
            yield address, offset, length


def offset_of(image, address):
    for start, offset, length in segments(image):
        if start <= address < start + length:
            return address - start + offset
    raise SystemExit(f"patch.py: {address:#x} is not in the file")


def main():
    kernel, patched = sys.argv[1:]
    with open(kernel, "rb") as file:
        image = bytearray(file.read())
    records = b""
    for finding in json.load(sys.stdin)["images"][0]["findings"]:
        address, code = int(finding["address"], 16), bytes.fromhex(finding["bytes"])
        at = offset_of(image, address)
        assert image[at : at + len(code)] == code
        image[at] = 0xCC
        records += struct.pack("<QQ16s", address, len(code), code)
        print(f"{address:#x}: {finding['text']}")
    with open(patched, "wb") as file:
        file.write(image)
    with open(patched + ".patches", "wb") as file:
        file.write(records)


main()
