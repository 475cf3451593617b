"""What a process may no longer do, no operation of its run does for it: each has the rights of the moment
in which the kernel gets it, by whichever way it goes, also where a worker of the kernel's was started
before. (libuv's rings kept the rights of their beginning: CVE-2024-22017.)"""

from __future__ import annotations

import ctypes
import os

import pytest
from child_process import output_of

PROGRAM = """
import ctypes, os, tempfile
from functools import partial
import trio, trio_uring
from trio_uring import lowlevel

LIBC = ctypes.CDLL(None, use_errno=True)
SOMEBODY, NOBODY = 1000, 65534

def call(function, *args):
    if function(*args) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def set_user():
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)

def set_user_for_a_while():
    os.setegid(NOBODY)
    os.seteuid(NOBODY)

def drop_capabilities():
    call(LIBC.capset, (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())

def shut_in():
    # By Landlock: none of its rights are left on any file.
    LIBC.prctl(38, 1, 0, 0, 0)
    rights = (1 << 13) - 1
    fd = LIBC.syscall(444, ctypes.byref(ctypes.c_uint64(rights)), ctypes.c_size_t(8), 0)
    call(lambda: fd)
    call(LIBC.syscall, 446, fd, 0)
    os.close(fd)

def change_root():
    os.chroot(FOLDER + "/empty")

FOLDER = tempfile.mkdtemp()
os.chmod(FOLDER, 0o755)
for name in ("closed", "empty"):
    os.mkdir(f"{{FOLDER}}/{{name}}", 0o700)
FILE, CLOSED, INSIDE = (f"{{FOLDER}}/{{name}}" for name in ("file", "closed", "closed/inside"))
for name in (FILE, INSIDE):
    os.close(os.open(name, os.O_CREAT, 0o600))
for name in (FILE, INSIDE, CLOSED):
    os.chown(name, SOMEBODY, SOMEBODY)

OPEN = {{
    "at once": partial(lowlevel.openat, FILE, os.O_RDONLY),
    "by the ring": partial(lowlevel.openat, FILE, os.O_RDONLY | os.O_NONBLOCK),
    "by a worker": partial(lowlevel.openat, FILE, os.O_RDWR | os.O_CREAT),
    "anew": partial(lowlevel.openat, f"{{CLOSED}}/new", os.O_RDWR | os.O_CREAT | os.O_EXCL),
    "directory": partial(lowlevel.openat, CLOSED, os.O_RDONLY | os.O_DIRECTORY),
}}
OTHER = {{
    "open_file": partial(trio_uring.open_file, FILE, "rb"),
    "open_file to write": partial(trio_uring.open_file, FILE, "wb"),
    "read_bytes": trio_uring.Path(FILE).read_bytes,
    "write_bytes": partial(trio_uring.Path(FILE).write_bytes, b"x"),
    "mkdir": partial(lowlevel.mkdirat, f"{{CLOSED}}/folder"),
    "link": partial(lowlevel.linkat, FILE, f"{{CLOSED}}/link"),
    "symlink": partial(lowlevel.symlinkat, "nowhere", f"{{CLOSED}}/symlink"),
    "rename": partial(lowlevel.renameat, INSIDE, f"{{CLOSED}}/other"),
    "unlink": partial(lowlevel.unlinkat, f"{{CLOSED}}/other"),
}}
MISSING = {{row.name for row in trio_uring.capabilities().operations if row.state == "missing"}}
for name, operation in {{"mkdir": "mkdirat", "link": "linkat", "symlink": "symlinkat"}}.items():
    if operation in MISSING:  # Linux 5.15 has them
        del OTHER[name]
LOOK = {{"statx": partial(lowlevel.statx, INSIDE), "stat": trio_uring.Path(INSIDE).stat}}

async def tried(name, call, done):
    try:
        result = await call()
    except (PermissionError, FileNotFoundError):
        return
    done.append(name)
    if name in OPEN:
        os.close(result)
    elif name.startswith("open_file"):
        await result.aclose()

async def main():
    before, after = [], []
    calls = {{**OPEN, **LOOK, **OTHER}}
    for name, call in calls.items():
        await tried(name, call, before)
    assert before == list(calls), before
    os.unlink(f"{{CLOSED}}/new")
    for name, made, remove in (
        ("mkdir", "folder", os.rmdir),
        ("link", "link", os.unlink),
        ("symlink", "symlink", os.unlink),
    ):
        if name in OTHER:
            await trio.to_thread.run_sync(remove, f"{{CLOSED}}/{{made}}")
    os.close(os.open(INSIDE, os.O_CREAT, 0o600))
    {drop}()
    for name, call in calls.items():
        await tried(name, call, after)
    print(*after)

trio_uring.run(main)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root has rights to give away")
@pytest.mark.parametrize(
    ("drop", "left"),
    [
        ("set_user", ""),
        ("set_user_for_a_while", ""),
        ("drop_capabilities", ""),
        ("shut_in", "statx stat"),  # which Landlock does not forbid
        ("change_root", ""),
    ],
)
def test_no_operation_has_rights_that_the_process_has_given_away(drop: str, left: str) -> None:
    if drop == "shut_in" and ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) < 0:
        pytest.skip("this kernel has no Landlock")
    assert output_of(PROGRAM.format(drop=drop)) == f"{left}\n"
