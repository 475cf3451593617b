"""`trio_uring.Path` against pathlib, the oracle: each scenario in a directory of its own.

Compared are the result or the error, with its names, and what the directory holds after.
"""

from __future__ import annotations

import copy
import errno
import gc
import inspect
import os
import pathlib
import pickle
import resource
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from equivalence import EPOLL, URING
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring.files.async_file import AsyncFile
from trio_uring.ring import features

if TYPE_CHECKING:
    from collections.abc import Callable

    from equivalence import Backend

BIG = bytes(range(256)) * 1000
TEXT = "eins\r\nzwei\rdrei\n\u20ac"


@attrs.frozen
class Call:
    """Of ``root / path``, each of ``methods``; ``{root}`` in an argument is the directory."""

    path: str
    methods: str
    args: tuple[object, ...]
    keywords: dict[str, object]

    def __str__(self) -> str:
        arguments = [repr(argument).partition(" at 0x")[0][:40] for argument in self.args]
        arguments += [f"{name}={value!r}" for name, value in self.keywords.items()]
        return f"{self.path[:40]!r}.{self.methods}({', '.join(arguments)})"

    async def on(self, root: pathlib.PurePath, method: str) -> Any:
        arguments = [
            argument.replace("{root}", str(root)) if isinstance(argument, str) else argument
            for argument in self.args
        ]
        result = getattr(root / self.path, method)(*arguments, **self.keywords)
        if inspect.isawaitable(result):
            result = await result
        return list(result) if isinstance(result, Iterator) else result


def call(path: str, methods: str, *args: object, **keywords: object) -> Call:
    return Call(path, methods, args, keywords)


EXISTING = ("file", "empty", "dir", "link", "dirlink", "fifo", "socket", "/dev/null", ".", "..")
NEWER = {"mkdir": "mkdirat", "symlink_to": "symlinkat", "hardlink_to": "linkat", "link_to": "linkat"}
"""Methods that need an operation of Linux 5.15, or a thread."""
MISSING = ("none", "none/below", "file/below", "dangling", "loop", "nul\0l", "x" * 300)
QUESTIONS = "exists is_dir is_file is_symlink is_socket is_fifo is_block_device is_char_device stat lstat"

BY_RING = [
    *(call(path, QUESTIONS) for path in (*EXISTING, *MISSING)),
    *(call(path, "stat", follow_symlinks=False) for path in ("link", "dangling", "none")),
    *(call(path, "samefile", "{root}/file") for path in ("file", "link", "empty", "none")),
    call("file", "samefile", "{root}/none"),
    call("file", "samefile", 3.5),
    *(call(path, "read_bytes") for path in ("file", "empty", "big", "link", "dir", *MISSING)),
    # The kernel tells no size of these, and gives them in pieces.
    *(call("text", "read_text", "utf-8", errors) for errors in (None, "strict", "replace")),
    call("text", "read_text", "utf-16"),
    call("text", "read_text", "ascii"),
    call("text", "read_text", encoding="ascii", errors="replace"),
    call("big", "read_text", "latin-1"),
    call("text", "read_text", "nonsense"),
    call("none", "read_text", "nonsense"),
    call("text", "read_text", 3),
    *(call(path, "write_bytes", b"new") for path in ("file", "new", "link", "dangling", "dir", "none/below")),
    call("new", "write_bytes", b""),
    call("new", "write_bytes", BIG),
    call("new", "write_bytes", memoryview(BIG).cast("I")),
    call("new", "write_bytes", memoryview(BIG)[:4].cast("B", (2, 2))[:0]),
    call("new", "write_bytes", memoryview(BIG)[::2]),
    call("file", "write_bytes", "text"),
    *(
        call("new", "write_text", TEXT, "utf-16", newline=newline)
        for newline in (None, "", "\n", "\r", "\r\n")
    ),
    call("file", "write_text", TEXT, "ascii"),
    call("file", "write_text", TEXT, "ascii", "replace"),
    call("file", "write_text", TEXT, "nonsense"),
    call("file", "write_text", TEXT, 3),
    call("file", "write_text", TEXT, newline="x"),
    call("file", "write_text", TEXT, newline=3),
    call("file", "write_text", b"bytes"),
    call("dir", "write_text", TEXT),
    call("new", "touch"),
    call("new", "touch", 0o600),
    call("new", "touch", 0o600, False),
    call("file", "touch", exist_ok=False),
    call("none/below", "touch"),
    call("file/below", "touch"),
    *(
        call(path, "unlink")
        for path in ("file", "link", "dirlink", "dangling", "dir", "fifo", "none", "nul\0l")
    ),
    *(call(path, "unlink", missing_ok=True) for path in ("none", "none/below", "file/below", "file")),
    *(call(path, "rmdir") for path in ("empty dir", "dir", "file", "none", "dirlink")),
    *(
        call(path, method, f"{{root}}/{target}")
        for method in ("rename", "replace")
        for path in ("file", "dir", "link", "none")
        for target in ("new", "empty", "empty dir", "dir", "dir/inner", "none/below")
    ),
    call("file", "rename", "/proc/elsewhere"),
    call("file", "rename", 3.5),
    *(call(path, "mkdir") for path in ("new", "file", "dir", "dangling", "none/below", "file/below")),
    *(call(path, "mkdir", 0o700) for path in ("new", "none/below")),
    *(call(path, "mkdir", parents=True) for path in ("none/below/it", "dir/below", "dir", "file/below")),
    *(call(path, "mkdir", exist_ok=True) for path in ("new", "dir", "dirlink", "file", "none/below")),
    *(call(path, "mkdir", 0o700, True, True) for path in ("none/below/it", "dir/below", "dir", "file", "/")),
    *(call(path, "symlink_to", "anywhere") for path in ("new", "file", "none/below")),
    call("new", "symlink_to", "dir", target_is_directory=True),
    call("new", "symlink_to", b"bytes"),
    *(call("new", "hardlink_to", f"{{root}}/{target}") for target in ("file", "link", "dir", "none")),
    call("empty", "hardlink_to", "{root}/file"),
]
if sys.version_info < (3, 12):
    BY_RING += [call("file", "link_to", f"{{root}}/{target}") for target in ("new", "empty", "none/below")]
else:
    BY_RING += [call(path, "exists", follow_symlinks=False) for path in ("link", "dangling", "none")]
if sys.version_info >= (3, 13):
    BY_RING += [call("text", "read_text", "utf-8", newline=newline) for newline in (None, "", "\r", "x")]
    BY_RING += [
        call("dirlink", "is_dir", follow_symlinks=False),
        call("link", "is_file", follow_symlinks=False),
    ]

BY_THREADS = [
    *(
        call(path, "read_bytes")
        for path in ("/dev/null", "/proc/crypto", "/proc/cmdline", "/sys/kernel/uevent_seqnum")
    ),
    call("/dev/full", "write_bytes", b"too much"),
    *(call(path, "touch") for path in ("file", "dir", "link", "dangling")),
    *(call("file", "chmod", mode) for mode in (0o600, 0o400)),
    *(call(path, "is_mount") for path in ("dir", "none", "/")),
    *(call(path, "iterdir") for path in ("dir", ".", "none")),
    *(call(path, "readlink") for path in ("link", "dangling", "file")),
    *(call(path, "owner") for path in ("file", "none")),
    *(call(path, "resolve") for path in ("link", "dir/../file")),
    call("none", "resolve", strict=True),
    call(".", "glob", "*i*"),
    call(".", "rglob", "i*"),
    call("dir", "absolute"),
    call("dir", "expanduser"),
]


@pytest.fixture
def make_root(tmp_path: pathlib.Path) -> Iterator[Callable[[str], pathlib.Path]]:
    sockets = []

    def make(name: str) -> pathlib.Path:
        root = tmp_path / name
        (root / "dir").mkdir(parents=True)
        (root / "empty dir").mkdir()
        (root / "dir/inner").write_bytes(b"inner")
        (root / "file").write_bytes(b"content")
        (root / "text").write_bytes(TEXT.encode())
        (root / "big").write_bytes(BIG)
        (root / "empty").touch()
        for link, target in (("link", "file"), ("dirlink", "dir"), ("dangling", "new"), ("loop", "loop")):
            (root / link).symlink_to(target)
        os.mkfifo(root / "fifo")
        sockets.append(socket.socket(socket.AF_UNIX))
        # A socket's path is short, so it is bound by way of the directory's descriptor.
        directory = os.open(root, os.O_DIRECTORY)
        sockets[-1].bind(f"/proc/self/fd/{directory}/socket")
        os.close(directory)
        return root

    yield make
    for made in sockets:
        made.close()


@pytest.fixture
def two_roots(make_root: Callable[[str], pathlib.Path]) -> tuple[pathlib.Path, pathlib.Path]:
    return make_root("expected"), make_root("observed")


def described(value: object, root: pathlib.PurePath) -> object:
    """Comparable between two directories."""
    if isinstance(value, pathlib.PurePath):
        return "path", str(value).replace(str(root), "")
    if isinstance(value, os.stat_result):
        is_dir = stat.S_ISDIR(value.st_mode)
        return value.st_mode, value.st_uid, value.st_gid, value.st_rdev, 0 if is_dir else value.st_size
    if isinstance(value, OSError):
        return type(value), value.errno, value.filename2 is None, str(value).replace(str(root), "")
    if isinstance(value, Exception):
        return type(value)
    if value is None or isinstance(value, (str, bytes, int)):
        return type(value), value
    return sorted((described(item, root) for item in value), key=repr)  # type: ignore[attr-defined]


def contents(root: pathlib.Path) -> object:
    def of(path: pathlib.Path) -> object:
        status = path.lstat()
        what: object = None
        if path.is_symlink():
            what = path.readlink()
        elif path.is_file():
            what = path.read_bytes()
        return str(path.relative_to(root)), status.st_mode, status.st_nlink, what

    return sorted((of(path) for path in root.rglob("*")), key=repr)


async def outcomes_of(call: Call, root: pathlib.PurePath) -> list[object]:
    outcomes = []
    for method in call.methods.split():
        try:
            result = await call.on(root, method)
        except Exception as error:
            result = error
        if isinstance(root, trio.Path) and isinstance(result, pathlib.PurePath):
            assert type(result) is type(root)
        outcomes.append(described(result, root))
    return outcomes


def check(
    backend: Backend, kind: type[trio.Path], roots: tuple[pathlib.Path, pathlib.Path], of: Call
) -> None:
    expected, observed = roots
    there = trio.run(outcomes_of, of, expected)
    assert backend.run(lambda: outcomes_of(of, kind(observed))) == there
    assert contents(observed) == contents(expected)


@pytest.mark.filterwarnings("ignore:.*link_to.*:DeprecationWarning")
class TestAsPathlib:
    @pytest.mark.parametrize("of", [*BY_RING, *BY_THREADS], ids=str)
    def test_on_io_uring(self, two_roots: tuple[pathlib.Path, pathlib.Path], of: Call) -> None:
        check(URING, trio_uring.Path, two_roots, of)

    @pytest.mark.parametrize("of", [*BY_RING, *BY_THREADS], ids=str)
    def test_on_epoll(self, two_roots: tuple[pathlib.Path, pathlib.Path], of: Call) -> None:
        check(EPOLL, trio_uring.Path, two_roots, of)

    @pytest.mark.parametrize("of", BY_RING, ids=str)
    def test_without_the_newer_operations(
        self, two_roots: tuple[pathlib.Path, pathlib.Path], of: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(features, "has_operation", lambda name: False)
        check(URING, trio_uring.Path, two_roots, of)

    @pytest.mark.parametrize("of", [*BY_RING, *BY_THREADS], ids=str)
    def test_and_so_does_trio(self, two_roots: tuple[pathlib.Path, pathlib.Path], of: Call) -> None:
        check(EPOLL, trio.Path, two_roots, of)


@pytest.mark.filterwarnings("ignore:.*link_to.*:DeprecationWarning")
@pytest.mark.parametrize("of", BY_RING, ids=str)
def test_no_thread_is_needed(make_root: Callable[[str], pathlib.Path], of: Call) -> None:
    if of.methods in NEWER and not features.has_operation(NEWER[of.methods]):
        pytest.skip("this kernel's ring has no such operation")

    async def main() -> None:
        limiter = trio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        limiter.acquire_on_behalf_of_nowait("nobody, so that a thread is never to be had")
        before = set(threading.enumerate())
        await outcomes_of(of, trio_uring.Path(root))
        assert set(threading.enumerate()) <= before

    root = make_root("root")
    URING.run(main)


@pytest.mark.parametrize("of", [*BY_RING, *BY_THREADS], ids=str)
@pytest.mark.filterwarnings("ignore:.*link_to.*:DeprecationWarning")
def test_every_call_is_a_checkpoint(make_root: Callable[[str], pathlib.Path], of: Call) -> None:
    async def main() -> None:
        for method in of.methods.split():
            refused = False
            with trio.CancelScope() as scope:
                scope.cancel()
                try:
                    await of.on(trio_uring.Path(root), method)
                except (TypeError, ValueError):
                    refused = True  # what is wrong with the arguments may be told first
            assert scope.cancelled_caught or refused, method

    root = make_root("root")
    before = contents(root)
    URING.run(main)
    assert contents(root) == before


@pytest.mark.parametrize("backend", [URING, EPOLL], ids=lambda backend: backend.name)
def test_open_gives_a_file_of_ours(tmp_path: pathlib.Path, backend: Backend) -> None:
    async def main() -> None:
        path = trio_uring.Path(tmp_path / "file")
        async with await path.open("w", encoding="utf-16", newline="\r\n") as file:
            assert isinstance(file, AsyncFile)
            await file.write("a\nb\n")
        async with await path.open("rb", 0) as file:
            assert await file.read() == "a\r\nb\r\n".encode("utf-16")
        with pytest.raises(FileNotFoundError) as caught:
            await (path.parent / "none").open()
        assert caught.value.filename == str(tmp_path / "none")
        with pytest.raises(ValueError, match="invalid mode"):
            await path.open("nonsense")

    backend.run(main)


def test_stat_is_the_whole_of_it(make_root: Callable[[str], pathlib.Path]) -> None:
    root = make_root("root")

    async def main() -> None:
        for path in (root / "file", root / "dir", pathlib.Path("/dev/null")):
            found, expected = await trio_uring.Path(path).stat(), path.stat()
            for name in (name for name in dir(expected) if name.startswith("st_")):
                assert getattr(found, name) == getattr(expected, name), name

    URING.run(main)


def test_samefile_takes_paths_of_any_kind(make_root: Callable[[str], pathlib.Path]) -> None:
    root = make_root("root")

    async def main() -> None:
        for kind in (str, pathlib.Path, trio.Path, trio_uring.Path):
            assert await trio_uring.Path(root / "link").samefile(kind(root / "file"))

    URING.run(main)


def descriptors_so_far() -> set[str]:
    """After those of garbage are closed, which earlier tests may have left."""
    gc.collect()
    return open_descriptors()


def open_descriptors() -> set[str]:
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


@pytest.mark.parametrize("of", [call("fifo", "read_bytes"), call("fifo", "write_bytes", BIG)], ids=str)
@pytest.mark.parametrize("peer", [False, True], ids=["opening", "transferring"])
def test_a_call_that_waits_is_cancelled_and_closes_its_descriptor(
    make_root: Callable[[str], pathlib.Path], of: Call, peer: bool
) -> None:
    async def main() -> None:
        before = descriptors_so_far()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert ends == ["cancelled"]
        assert open_descriptors() == before

    async def wait() -> None:
        try:
            ends.append(await of.on(trio_uring.Path(root), of.methods))
        except trio.Cancelled:
            ends.append("cancelled")
            raise

    root = make_root("root")
    ends: list[object] = []
    other_end = os.open(root / "fifo", os.O_RDWR) if peer else None
    try:
        URING.run(main)
    finally:
        if other_end is not None:
            os.close(other_end)


@pytest.mark.parametrize("first", ["reader", "writer"])
def test_reader_and_writer_of_a_fifo_wait_for_each_other(tmp_path: pathlib.Path, first: str) -> None:
    async def read() -> None:
        assert await trio_uring.Path(fifo).read_bytes() == BIG

    async def write() -> None:
        assert await trio_uring.Path(fifo).write_bytes(BIG) == len(BIG)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read if first == "reader" else write)
            await wait_all_tasks_blocked()
            nursery.start_soon(write if first == "reader" else read)

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    URING.run(main)


def test_a_thousand_files_at_once(tmp_path: pathlib.Path) -> None:
    async def write_and_read(number: int) -> None:
        path = trio_uring.Path(tmp_path, str(number))
        await path.write_text(f"{number}\n" * number)
        assert await path.read_text() == f"{number}\n" * number

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(write_and_read, number)

    before = descriptors_so_far()
    URING.run(main)
    assert open_descriptors() == before


def test_a_lack_of_descriptors_is_an_error_of_the_file(
    make_root: Callable[[str], pathlib.Path],
) -> None:
    async def main() -> None:
        taken = []
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            with pytest.raises(OSError, match="Too many open files") as caught:
                await trio_uring.Path(root / "file").read_bytes()
        finally:
            for fd in taken:
                os.close(fd)
        assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, str(root / "file"))

    root = make_root("root")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        URING.run(main)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_missing_encoding_is_warned_of_where_the_caller_is(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, warnings, trio_uring\n"
        "async def main():\n"
        "    path = trio_uring.Path(sys.argv[1])\n"
        "    with warnings.catch_warnings(record=True) as caught:\n"
        "        warnings.simplefilter('always')\n"
        "        await path.write_text('a')\n"
        "        await path.read_text()\n"
        "        await (await path.open()).aclose()\n"
        "    assert [(w.category, w.filename, w.lineno) for w in caught] == [\n"
        "        (EncodingWarning, __file__, line) for line in (6, 7, 8)], caught\n"
        "trio_uring.run(main)\n"
    )
    subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", program, tmp_path / "file"], check=True, timeout=60
    )


def test_an_error_that_is_kept_with_its_frame_is_collected() -> None:
    """CPython up to 3.12 crashes if a memoryview is collected whose buffer is exported."""

    async def keep_the_error() -> None:
        try:
            await trio_uring.Path("/dev/full").write_bytes(memoryview(b"too much"))
        except OSError as error:
            kept = error
        assert kept.errno == errno.ENOSPC

    async def main() -> None:
        await keep_the_error()
        gc.collect()

    gc.disable()
    try:
        URING.run(main)
    finally:
        gc.enable()


class TestPure:
    """What needs no run."""

    def test_is_a_path_of_trio_and_of_pathlib(self) -> None:
        path = trio_uring.Path("a", pathlib.Path("b"), trio.Path("c"))
        assert isinstance(path, trio.Path)
        assert isinstance(path, pathlib.PurePosixPath)
        assert not isinstance(path, pathlib.Path)
        assert os.fspath(path) == str(path) == "a/b/c"
        assert repr(path) == "trio_uring.Path('a/b/c')"

    @pytest.mark.parametrize("kind", [trio_uring.Path, trio.Path, pathlib.Path, pathlib.PurePosixPath])
    def test_compares_with_every_kind(self, kind: type[pathlib.PurePath]) -> None:
        assert trio_uring.Path("a") == kind("a")
        assert hash(trio_uring.Path("a")) == hash(kind("a"))
        assert trio_uring.Path("a") < kind("b")
        assert trio_uring.Path("a") != kind("b")

    def test_makes_paths_of_its_class(self) -> None:
        path = trio_uring.Path("a/b.txt")
        made = [path / "c", "c" / path, path.parent, path.joinpath("c"), path.with_name("c"), *path.parents]
        made += [path.with_suffix(".py"), path.relative_to("a"), copy.copy(path), copy.deepcopy(path)]
        made += [pickle.loads(pickle.dumps(path)), trio_uring.Path(trio.Path("x"))]
        assert {type(one) for one in made} == {trio_uring.Path}
        assert pickle.loads(pickle.dumps(path)) == path

    def test_anything_but_a_path_is_refused(self) -> None:
        with pytest.raises(TypeError):
            trio_uring.Path(1)  # type: ignore[arg-type]

    def test_outside_of_a_run_there_is_one_error(self) -> None:
        for method in (trio_uring.Path(".").stat, trio_uring.Path(".").read_bytes):
            coroutine = method()
            with pytest.raises(RuntimeError, match="must be called from async context"):
                coroutine.send(None)
