"""The page cache: whether a file's pages are in it is set, and then looked at.

`posix_fadvise` only advises: a file system that lives in the cache (tmpfs) keeps its
pages whatever it is told, and so do pages that are mapped or not written yet. So
`mincore` has the last word. It tells the truth only to who may write the file, and
calls everything resident otherwise, so a doubtful cold cache is refused, not believed.

Cold means this kernel's cache: a host below a virtual machine may have one of its own.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure.processes import ChildError

_LIBC = ctypes.CDLL(None, use_errno=True)
_ADDRESS, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_LIBC.mmap.restype = _ADDRESS
_LIBC.mmap.argtypes = (_ADDRESS, _SIZE, _INT, _INT, _INT, ctypes.c_long)
_LIBC.mlock.argtypes = _LIBC.munmap.argtypes = (_ADDRESS, _SIZE)
_MAP_FAILED = ctypes.c_void_p(-1).value


class CacheError(ChildError):
    """The file's pages are not where the benchmark says that they are."""


def warm(path: Path, size: int) -> None:
    """Puts the first ``size`` bytes into the cache. A machine that takes memory back from
    the cache meanwhile is given a second chance, and a third."""
    pages = -(-size // mmap.PAGESIZE)
    for _ in range(3):
        if resident(path, size) == pages:
            return
        with open(path, "rb", buffering=0) as file:
            left = size
            while left > 0 and (data := file.read(min(left, 1 << 20))):
                left -= len(data)
    if (found := resident(path, size)) < pages:
        raise CacheError(f"the cache is not warm: {found} of {pages} pages are in it after reading them all")


@contextmanager
def kept_warm(path: Path, size: int) -> Iterator[None]:
    """Warm until the end, where this process may lock so much memory: a machine that takes the
    cache's memory back (DAMON's reclaim) does it within seconds."""
    warm(path, size)
    with open(path, "rb") as file:
        # Python's own mappings hand their address out only if they are writable.
        mapped = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if mapped == _MAP_FAILED:
        raise CacheError(f"mmap: {os.strerror(ctypes.get_errno())}")
    try:
        _LIBC.mlock(mapped, size)
        yield
    finally:
        _LIBC.munmap(mapped, size)


def cold(path: Path, size: int) -> None:
    """Drops the file from the cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if found := resident(path, size):
        raise CacheError(f"the cache is not cold: {found} pages are still in it after POSIX_FADV_DONTNEED")


def make_room(path: Path, size: int) -> None:
    """Has the kernel take memory for ``size`` bytes of the cache, and leaves it free.

    A virtual machine may give memory that has been free for some seconds back to its host, and
    gets it again at a twentieth of the speed of writing to the cache.
    """
    piece = bytes(1 << 20)
    with open(path, "wb", buffering=0) as file:
        for start in range(0, size, len(piece)):
            file.write(piece[: size - start])
        file.truncate(0)
    path.unlink()


def resident(path: Path, size: int) -> int:
    """How many pages of the first ``size`` bytes are in the cache."""
    pages = -(-size // mmap.PAGESIZE)
    states = (ctypes.c_ubyte * pages)()
    # A private mapping, since ctypes takes the address of writable memory only.
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapping:
        start = ctypes.c_char.from_buffer(mapping)
        failed = _LIBC.mincore(ctypes.byref(start), ctypes.c_size_t(size), states)
        del start
    if failed:
        raise CacheError(f"mincore: {os.strerror(ctypes.get_errno())}")
    return sum(state & 1 for state in bytes(states))
