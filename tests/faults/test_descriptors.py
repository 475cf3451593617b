"""No program that is started meanwhile inherits what a run has open: each descriptor is close-on-exec
as it is made, in the mixed workload, with temporary files and a guest run."""

from __future__ import annotations

from pathlib import Path

import pytest
from child_process import output_of

MIX = """
import fcntl, os, queue, sys, tempfile
from pathlib import Path
import trio, trio_uring
sys.path.insert(0, {folder!r})
import work_on_files, work_on_streams, work_on_the_rest
from work import Work

PARTS = (*work_on_streams.PARTS, *work_on_files.PARTS, *work_on_the_rest.PARTS)
class Look(trio.abc.Instrument):
    def __init__(self):
        self.kept, self.inherited = set(), set()

    def before_io_wait(self, timeout):
        self.look()

    def after_task_step(self, task):
        self.look()

    def look(self):
        for name in set(os.listdir("/proc/self/fd")) - {{"0", "1", "2"}}:
            try:
                target = os.readlink(f"/proc/self/fd/{{name}}")
                flags = fcntl.fcntl(int(name), fcntl.F_GETFD)
            except OSError:  # that of the listing itself, or one that a thread has closed
                continue
            target = target.removeprefix("anon_inode:")
            kind = "file" if target[0] == "/" else target.split(":")[0].strip("[]")
            (self.kept if flags & fcntl.FD_CLOEXEC else self.inherited).add(kind)

async def temporary():
    async with trio_uring.TemporaryFile() as file, trio_uring.NamedTemporaryFile() as named:
        await file.write(b"data")
        await named.write(b"data")
        await named.flush()
        async with trio_uring.SpooledTemporaryFile(max_size=1) as spooled:
            await spooled.write(b"data")
            await trio.lowlevel.checkpoint()
    {more}
    fd, name = await trio_uring.mkstemp()
    await trio.lowlevel.checkpoint()
    os.close(fd)
    os.unlink(name)
    fd = await trio_uring.lowlevel.openat("/dev/null", os.O_RDONLY)
    await trio.lowlevel.checkpoint()
    await trio_uring.lowlevel.close(fd)

async def main(folder):
    work = Work(1, Path(folder), frozenset())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(temporary)
        for part in PARTS:
            nursery.start_soon(part, work)

def guest(look):
    todo = queue.SimpleQueue()
    trio_uring.start_guest_run(
        temporary,
        run_sync_soon_threadsafe=todo.put,
        done_callback=lambda _: todo.put(None),
        instruments=[look],
    )
    while (call := todo.get()) is not None:
        call()

ahead = 3 if "completions" in trio_uring.capabilities().used else 0
look = Look()
with tempfile.TemporaryDirectory() as folder:
    for ring in (trio_uring.RingOptions(files=True), trio_uring.RingOptions(accept_ahead=ahead)):
        trio_uring.run(main, folder, ring=ring, instruments=[look])
guest(look)
print(sorted(look.inherited), look.kept >= {{"io_uring", "eventfd", "socket", "pipe", "file"}})
"""


@pytest.mark.parametrize(
    ("more", "inherited"),
    [("pass", []), ("os.set_inheritable(os.open('/dev/null', 0), True)", ["file"])],
    ids=["", "one that is made inheritable is seen"],
)
def test_what_a_run_has_open_is_closed_by_exec(more: str, inherited: list[str]) -> None:
    program = MIX.format(folder=str(Path(__file__).parent), more=more)
    assert output_of(program) == f"{inherited} True\n"
