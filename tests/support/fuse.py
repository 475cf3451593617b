"""A file system of the tests' own: a server of FUSE, by the kernel's protocol, with one file.

It falls short and fails as it is told, as servers of network file systems may. To mount takes
root and a mount namespace of one's own: `isolated` runs a child process there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import subprocess
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from equivalence import python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

UNSHARE = ("unshare", "--mount", "--propagation", "private")
_HEADER = struct.Struct("=IIQQIIII")  # length, opcode, request, node, uid, gid, pid, padding
_ANSWER = struct.Struct("=IiQ")
_INIT = struct.Struct("=IIIIHHIIHHI28x")
_ATTRIBUTES = struct.Struct("=QQQQQQIIIIIIIIII")
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _STATFS = 1, 2, 3, 4, 14, 15, 16, 17
_RELEASE, _FSYNC, _FLUSH, _INITIALISE, _OPENDIR, _RELEASEDIR, _BATCH_FORGET = 18, 20, 25, 26, 27, 29, 42
_DIRECT_IO = 1
_SIZE = 1 << 3
_BUFFER = 1 << 20
_ROOT, _FILE = 1, 2


@attrs.define
class Served:
    """The file, and how the server behaves; sizes are in bytes."""

    content: bytearray
    direct: bool = False
    """Whether the page cache is left out."""
    most_read: int = 1 << 30
    """A read is answered with so much at most."""
    most_written: int = 1 << 30
    fails_from: int = 1 << 62
    """A read that begins there or later is answered with EIO, and no read reaches past it."""
    reads: int = 0

    def answer(self, opcode: int, node: int, body: bytes) -> bytes | int:
        """The answer to a request, or -errno."""
        answers: dict[int, Callable[[], bytes | int]] = {
            _LOOKUP: lambda: self._find(body.rstrip(b"\0")),
            _GETATTR: lambda: struct.pack("=QII", 0, 0, 0) + self._attributes(node),
            _SETATTR: lambda: self._change(node, *struct.unpack_from("=IIQQ", body)),
            _OPEN: lambda: struct.pack("=QII", 0, _DIRECT_IO if self.direct else 0, 0),
            _OPENDIR: lambda: struct.pack("=QII", 0, 0, 0),
            _READ: lambda: self._read(*struct.unpack_from("=QQI", body)),
            _WRITE: lambda: self._write(*struct.unpack_from("=QQI", body), body[40:]),
            _STATFS: lambda: bytes(80),
            **dict.fromkeys((_RELEASE, _RELEASEDIR, _FLUSH, _FSYNC), lambda: b""),
        }
        return answers[opcode]() if opcode in answers else -errno.ENOSYS

    def _find(self, name: bytes) -> bytes | int:
        if name != b"file":
            return -errno.ENOENT
        return struct.pack("=QQQQII", _FILE, 0, 0, 0, 0, 0) + self._attributes(_FILE)

    def _change(self, node: int, valid: int, _: int, __: int, size: int) -> bytes:
        if valid & _SIZE:
            del self.content[size:]
            self.content.extend(bytes(size - len(self.content)))
        return struct.pack("=QII", 0, 0, 0) + self._attributes(node)

    def _attributes(self, node: int) -> bytes:
        mode, size = (0o40755, 0) if node == _ROOT else (0o100644, len(self.content))
        return _ATTRIBUTES.pack(node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _read(self, _: int, offset: int, size: int) -> bytes | int:
        self.reads += 1
        if offset >= self.fails_from:
            return -errno.EIO
        end = min(offset + min(size, self.most_read), self.fails_from)
        return bytes(self.content[offset:end])

    def _write(self, _: int, offset: int, size: int, data: bytes) -> bytes:
        size = min(size, self.most_written)
        self.content.extend(bytes(max(offset - len(self.content), 0)))
        self.content[offset : offset + size] = data[:size]
        return struct.pack("=II", size, 0)


@contextlib.contextmanager
def mounted(served: Served, place: Path) -> Iterator[Path]:
    """The file's path; for a process that `isolated` has made."""
    place.mkdir(exist_ok=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tests", os.fsencode(place), b"fuse.tests", 0, options):
        raise OSError(ctypes.get_errno(), "cannot mount")
    threading.Thread(target=_serve, args=(device, served), daemon=True).start()
    yield place / "file"
    libc.umount2(os.fsencode(place), 2)  # lazily


def _serve(device: int, served: Served) -> None:
    with contextlib.suppress(OSError):  # it was unmounted
        while True:
            request = os.read(device, _BUFFER + 4096)
            _, opcode, number, node, *_ = _HEADER.unpack_from(request)
            if opcode in (_FORGET, _BATCH_FORGET):
                continue
            if opcode == _INITIALISE:
                answer: Any = _INIT.pack(7, 31, _BUFFER, 0, 12, 9, _BUFFER, 1, 256, 0, 0)
            else:
                answer = served.answer(opcode, node, request[_HEADER.size :])
            error, data = (answer, b"") if isinstance(answer, int) else (0, answer)
            with contextlib.suppress(FileNotFoundError):  # interrupted
                os.write(device, _ANSWER.pack(_ANSWER.size + len(data), error, number) + data)


def isolated(code: str, *args: str) -> str:
    """What a child process prints that runs ``code`` in a mount namespace of its own."""
    if reason := _refusal():
        pytest.skip(f"cannot mount a file system of our own: {reason}")
    return python(code, *args, before=UNSHARE)


@cache
def _refusal() -> str:
    if os.geteuid():
        return "not root"
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    code = (
        "import pathlib, sys, fuse\n"
        "with fuse.mounted(fuse.Served(bytearray(b'x')), pathlib.Path(sys.argv[1])) as path:\n"
        "    assert path.read_bytes() == b'x'\n"
    )
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", code, "/tmp"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=os.path.dirname(__file__),
        check=False,
    )
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
