"""What of a file lies in the page cache, and dropping it from there; Linux only."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

_DONT_NEED = 4


def memory_mb() -> dict[str, float]:
    """Of this process: private memory, and pages of mapped files that are resident."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        name: round(int(fields[key].split()[0]) / 1024, 1) for name, key in {"private": "RssAnon", "mapped": "RssFile"}.items()
    }


def drop_from_cache(path: Path) -> None:
    """Also of pages that this process has mapped, which the system would not drop otherwise."""
    library = ctypes.CDLL(None, use_errno=True)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path.resolve())):
            begin, end = (int(one, 16) for one in line.split()[0].split("-"))
            if library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONT_NEED):
                raise OSError(ctypes.get_errno(), "madvise")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def cached_bytes(path: Path) -> int:
    """By `mincore` on a mapping of its own."""
    library = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as view:
        flags = (ctypes.c_ubyte * (-(-size // mmap.PAGESIZE)))()
        first = ctypes.c_char.from_buffer(view)
        address = ctypes.addressof(first)
        del first
        if library.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), flags):
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(byte & 1 for byte in bytes(flags)) * mmap.PAGESIZE
