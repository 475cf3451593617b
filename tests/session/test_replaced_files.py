"""`RingOptions.files`: the files and paths of a program that knows nothing of trio-uring, which does what
it does on Trio's own."""

from __future__ import annotations

import io
import pathlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
from child_process import output_of

import trio_uring
from trio_uring import RingOptions
from trio_uring.files import replacements
from trio_uring.files.async_file import AsyncFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

FILES = RingOptions(files=True)


class Mine(trio.Path, pathlib.PurePosixPath):
    """A subclass of the user's."""

    _wrapped_cls = pathlib.PosixPath

    async def stat(self, **_: object) -> str:  # type: ignore[override]
        return "mine"


async def everything(folder: Path) -> list[Any]:
    """What a program sees of all that is replaced, and of what is not."""
    seen: list[Any] = []
    path = trio.Path(folder, "file")
    seen.append(await path.write_text("one\ntwo\n"))
    seen.append(await path.read_bytes())
    async with await path.open() as file:
        seen.append([line async for line in file])
    async with await trio.open_file(path, "rb", 0) as raw:
        seen += [await raw.read(), raw.name, raw.mode]
    with pytest.raises(FileNotFoundError) as raised:
        await trio.open_file(folder / "nowhere")
    seen.append(str(raised.value))
    with pytest.raises(FileNotFoundError) as raised:
        await trio.Path(folder, "nowhere").stat()
    seen.append(str(raised.value))
    seen.append((await path.stat()).st_size)
    moved = await path.rename(folder / "moved")
    seen += [moved, type(moved), isinstance(moved, trio.Path), await moved.exists(), await path.exists()]
    replaced = await Mine(moved).replace(folder / "replaced")
    seen += [replaced, type(replaced), await replaced.stat(), await replaced.is_file()]
    await (path.parent / "directory").mkdir()
    names = await trio.Path(folder).iterdir()
    seen.append(sorted((str(name), type(name).__name__) for name in names))
    seen.append([(str(name), type(name)) for name in await Mine(folder).glob("r*")])
    seen += [
        type(await trio.Path.cwd()),
        type(await Mine.home()),
        await path.samefile(path.parent / "x") if 0 else 0,
    ]
    with pytest.raises(TypeError):
        await path.write_text(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await path.unlink(1, 2, 3)  # type: ignore[call-arg]
    return seen


def test_program_sees_what_it_sees_on_trios_own(tmp_path: Path) -> None:
    results = []
    for name, run in (("trio", trio.run), ("uring", lambda *args: trio_uring.run(*args, ring=FILES))):
        (tmp_path / name).mkdir()
        results.append(str(run(everything, tmp_path / name)).replace(f"{tmp_path}/{name}", ""))
    assert results[0] == results[1]


def test_no_thread_is_needed(tmp_path: Path) -> None:
    async def main() -> None:
        path = trio.Path(tmp_path, "file")
        await path.write_bytes(bytes(1 << 20))
        async with await trio.open_file(path, "r+b") as file:
            assert isinstance(file, AsyncFile)
            assert len(await file.read()) == 1 << 20
        async with await path.open() as text:
            assert isinstance(text, AsyncFile)
        assert await path.is_file()
        await path.unlink()
        assert threading.active_count() == before

    before = threading.active_count()
    trio_uring.run(main, ring=FILES)


def test_only_runs_that_ask_for_it_have_them(tmp_path: Path) -> None:
    async def kind() -> bool:
        async with await trio.open_file(tmp_path / "file", "w") as file:
            return isinstance(file, AsyncFile)

    trios = trio.open_file, trio.wrap_file, trio.Path.open, trio.Path.stat
    assert trio_uring.run(kind, ring=FILES)
    assert not trio_uring.run(kind)
    with trio_uring.installed(FILES):
        assert trio.open_file is not trios[0]
        assert trio.run(kind)
        assert not trio_uring.run(kind, ring=RingOptions(files=False))
        thread_result: list[bool] = []
        with trio_uring.installed(RingOptions()):  # which says nothing of files
            assert not trio.run(kind)
            thread = threading.Thread(target=lambda: thread_result.append(trio_uring.run(kind, ring=FILES)))
            thread.start()
            thread.join()
        assert thread_result == [True]
        assert trio.run(kind)
    assert (trio.open_file, trio.wrap_file, trio.Path.open, trio.Path.stat) == trios
    assert not trio.run(kind)


def test_run_on_epoll_beside_one_that_has_them_has_trios(tmp_path: Path) -> None:
    async def kind() -> bool:
        async with await trio.open_file(tmp_path / "file", "w") as file:
            return isinstance(file, AsyncFile)

    async def main() -> tuple[bool, bool]:
        return await kind(), await trio.to_thread.run_sync(trio.run, kind)

    assert trio_uring.run(main, ring=FILES) == (True, False)


def test_outside_of_runs_they_are_trios(tmp_path: Path) -> None:
    def refusal(call: Callable[[], Awaitable[object]]) -> str:
        with pytest.raises(RuntimeError) as raised:
            call().__await__().__next__()
        return str(raised.value)

    calls = [lambda: trio.open_file(tmp_path / "x", "w"), lambda: trio.Path(tmp_path).stat()]
    before = [refusal(call) for call in calls]
    with trio_uring.installed(FILES):
        assert [refusal(call) for call in calls] == before
        with open("/dev/null") as file:
            assert trio.wrap_file(file).wrapped is file


def test_files_that_are_wrapped_are_ours_where_ours_is_faithful() -> None:
    async def main() -> None:
        with io.FileIO("/dev/null") as raw, open("/dev/null") as text:
            assert isinstance(trio.wrap_file(raw), AsyncFile)
            assert type(trio.wrap_file(text)).__module__.startswith("trio.")
            assert type(trio_uring.wrap_file(text)).__module__.startswith("trio.")
        assert type(trio.wrap_file(raw)).__module__.startswith("trio."), "it is closed"
        with pytest.raises(TypeError):
            trio.wrap_file(3)

    trio_uring.run(main, ring=FILES)


def test_our_own_paths_work_beside_them(tmp_path: Path) -> None:
    async def main() -> None:
        path = trio_uring.Path(tmp_path, "file")
        await path.touch()
        await path.touch()  # one that is there: a thread of Trio's
        assert type(await path.rename(tmp_path / "other")) is trio_uring.Path
        assert [type(name) for name in await trio_uring.Path(tmp_path).iterdir()] == [trio_uring.Path]

    trio_uring.run(main, ring=FILES)


def test_wrapper_of_somebody_elses_is_his(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[str] = []
    trios = trio.Path.read_bytes

    async def read_bytes(self: trio.Path) -> bytes:
        called.append(str(self))
        return await trios(self)

    async def main() -> tuple[str, ...]:
        await trio.Path(tmp_path, "file").write_bytes(b"x")
        assert await trio.Path(tmp_path, "file").read_bytes() == b"x"
        statistics = trio.lowlevel.current_statistics().io_statistics
        assert isinstance(statistics, trio_uring.UringStatistics)
        return statistics.wrapped

    monkeypatch.setattr(trio.Path, "read_bytes", read_bytes)
    assert trio_uring.run(main, ring=FILES) == ("trio.Path.read_bytes",)
    assert called == [f"{tmp_path}/file"]
    assert trio.Path.read_bytes is read_bytes


def test_methods_of_paths_that_we_have_are_all_replaced() -> None:
    _, paths = replacements.table()
    public = {name for name in vars(trio_uring.Path) if not name.startswith("_")}
    assert set(paths.functions) == public & vars(trio.Path).keys()
    assert {"open", "read_bytes", "stat", "unlink", "rename", "mkdir"} <= set(paths.functions)
    assert set(dir(trio_uring.Path)) >= public


@pytest.mark.parametrize("how", ["--files", "TRIO_URING_FILES"])
def test_unmodified_program(how: str) -> None:
    program = "\n".join(
        (
            "import trio",
            "async def main():",
            "    async with await trio.open_file('/dev/null') as file: print(type(file).__module__)",
            "trio.run(main)",
        )
    )
    if how.startswith("-"):
        command = f"[sys.executable, '-m', 'trio_uring', '--files', '-c', {program!r}]"
        assert output_of(f"import subprocess, sys; subprocess.run({command})") == "trio_uring.files.text\n"
    else:
        assert output_of(program, env={"TRIO_URING": "1", how: "1"}) == "trio_uring.files.text\n"
        assert output_of(program, env={"TRIO_URING": "1", how: "0"}) == "trio._file_io\n"
