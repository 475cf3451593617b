"""Other people's functions in the place of Trio's: each is called as on epoll, whenever it came, and is
where its owner left it afterwards; and no byte is lost on the way past it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import patching
import pytest
import trio
import trio.testing
from equivalence import EPOLL, URING, Backend, io_statistics, needs_completions, python
from patching import NAMES, TRIOS, Wrapper, call_everything, held, put
from trio._core import _run as trio_run
from trio._socket import _SocketType

import trio_uring
from trio_uring.session import replacement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

both = pytest.mark.parametrize("backend", [EPOLL, URING], ids=["epoll", "io_uring"])
each_name = pytest.mark.parametrize("name", NAMES)
RUN: Any = trio_run
NATIVE = Path(__file__).resolve().parents[2] / "native/python"
MAKERS = (RUN.TheIOManager, RUN.setup_runner)


@pytest.fixture(autouse=True)
def _trio_is_as_it_was() -> Iterator[None]:
    """A test undoes its patches itself; what is left then is Trio's own, once a run has ended."""
    yield
    trio_uring.run(trio.sleep, 0)
    left = {name: held(name) for name in NAMES}
    makers = (RUN.TheIOManager, RUN.setup_runner)
    for name in NAMES:
        put(name, TRIOS[name])
    RUN.TheIOManager, RUN.setup_runner = MAKERS
    assert left == TRIOS
    assert makers == MAKERS
    assert not hasattr(_SocketType, "_uring_excluded")


@functools.cache
def expected(name: str) -> tuple[list[object], int]:
    """What `call_everything` sees on epoll, and how often it calls ``name``."""
    wrapper = Wrapper(name)
    wrapper.put()
    try:
        seen = EPOLL.run(call_everything)
    finally:
        put(name, TRIOS[name])
    return seen, wrapper.calls


def test_the_program_calls_all_that_is_replaced() -> None:
    table = {
        f"{owner}.{name}"
        for replaced in replacement.TABLE
        for owner, known in patching.OWNERS.items()
        for name in replaced.functions
        if replaced.owner is known
    }
    assert table == {*NAMES, "SocketType._nonblocking_helper"}
    for name in NAMES:
        assert expected(name)[1] > 0


@each_name
def test_what_came_before_the_run_is_called_as_on_epoll_and_stays(name: str) -> None:
    wrapper = Wrapper(name)
    wrapper.put()
    seen = URING.run(call_everything)
    assert wrapper.is_there
    put(name, TRIOS[name])
    assert (seen, wrapper.calls) == expected(name)


@each_name
def test_what_came_before_install_is_called_as_on_epoll_and_stays(name: str) -> None:
    wrapper = Wrapper(name)
    wrapper.put()
    with trio_uring.installed():
        seen = trio.run(call_everything)
    assert wrapper.is_there
    put(name, TRIOS[name])
    assert (seen, wrapper.calls) == expected(name)


@each_name
def test_what_came_after_install_is_called_as_on_epoll_and_stays(name: str) -> None:
    with trio_uring.installed():
        wrapper = Wrapper(name)
        wrapper.put()
        seen = trio.run(call_everything)
    assert wrapper.is_there
    put(name, TRIOS[name])
    assert (seen, wrapper.calls) == expected(name)


@pytest.mark.parametrize("over", ["what is there", "what Trio has"])
@each_name
def test_what_comes_during_the_run_is_called_as_on_epoll_and_stays(name: str, over: str) -> None:
    wrapper = Wrapper(name, TRIOS[name])

    async def main() -> list[object]:
        await call_everything()
        if over == "what is there":
            wrapper.below = held(name)
        wrapper.put()
        return await call_everything()

    seen = URING.run(main)
    assert wrapper.is_there
    put(name, TRIOS[name])
    assert (seen, wrapper.calls) == expected(name)


def test_what_came_before_the_import_is_called_as_on_epoll_and_stays() -> None:
    """Of each name alone, and of all of them: a process of its own for each."""
    program = """
import os, sys, trio, trio.testing
from patching import *

assert "trio_uring" not in sys.modules
for names in [*([name] for name in NAMES), NAMES]:
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, names
        continue
    wrappers = [Wrapper(name) for name in names]
    for wrapper in wrappers:
        wrapper.put()
    expected = trio.run(call_everything)
    calls = [wrapper.calls for wrapper in wrappers]
    import trio_uring
    for _ in range(2):
        for wrapper in wrappers:
            wrapper.calls = 0
        assert trio_uring.run(call_everything) == expected
        assert [wrapper.calls for wrapper in wrappers] == calls
        assert all(wrapper.is_there for wrapper in wrappers)
    os._exit(0)
print("done")
"""
    assert python(program) == "done\n"


@each_name
def test_what_is_undone_does_not_come_back(name: str) -> None:
    wrapper = Wrapper(name)
    wrapper.put()
    URING.run(call_everything)
    put(name, TRIOS[name])
    calls = wrapper.calls
    for _ in range(2):
        URING.run(call_everything)
        assert held(name) is TRIOS[name]
    assert wrapper.calls == calls


@each_name
def test_what_is_undone_during_a_run_does_not_come_back(name: str) -> None:
    async def main() -> list[object]:
        before = held(name)
        wrapper = Wrapper(name)
        wrapper.put()
        await call_everything()
        put(name, before)
        calls = wrapper.calls
        seen = await call_everything()
        assert wrapper.calls == calls
        return seen

    assert URING.run(main) == expected(name)[0]
    assert held(name) is TRIOS[name]


@each_name
def test_a_patch_that_is_entered_in_a_run_and_left_after_it_leaves_what_works(name: str) -> None:
    """It puts our function back, as if that were Trio's."""
    owner, attribute = patching.find(name)
    seen, calls = expected(name)
    patch = contextlib.ExitStack()

    async def main() -> Wrapper:
        wrapper = Wrapper(name)
        patch.enter_context(mock.patch.object(owner, attribute, wrapper.function))
        assert await call_everything() == seen
        return wrapper

    wrapper = URING.run(main)
    assert EPOLL.run(call_everything) == seen
    assert wrapper.calls == 2 * calls
    patch.close()
    assert held(name) is not TRIOS[name]
    assert EPOLL.run(call_everything) == seen
    assert URING.run(call_everything) == seen
    assert held(name) is TRIOS[name]
    assert wrapper.calls == 2 * calls


@each_name
def test_wrappers_are_undone_in_any_order(name: str) -> None:
    seen, calls = expected(name)
    first = Wrapper(name)
    first.put()

    async def main() -> Wrapper:
        second = Wrapper(name)
        second.put()
        assert await call_everything() == seen
        put(name, TRIOS[name])  # the first one's owner has no idea of the second
        assert await call_everything() == seen
        second.put()
        return second

    second = URING.run(main)
    assert (first.calls, second.calls) == (calls, calls)
    assert second.is_there
    assert URING.run(call_everything) == seen
    assert (first.calls, second.calls) == (2 * calls, 2 * calls)
    put(name, second.below)
    assert URING.run(call_everything) == seen
    assert first.calls == 3 * calls
    assert first.is_there
    put(name, TRIOS[name])


@each_name
def test_a_wrapper_may_hold_ours_for_ever(name: str) -> None:
    seen, calls = expected(name)

    async def main() -> Wrapper:
        return Wrapper(name)

    wrapper = URING.run(main)
    for backend in (EPOLL, URING, EPOLL, URING):
        wrapper.put()
        assert backend.run(call_everything) == seen
        assert wrapper.is_there
        put(name, TRIOS[name])
    assert wrapper.calls == 4 * calls


@each_name
def test_what_is_no_function_is_left_alone(name: str) -> None:
    seen, calls = expected(name)
    below = TRIOS[name]
    number = 0

    class Descriptor:
        def __get__(self, instance: object, of: object = None) -> Callable[..., Any]:
            nonlocal number
            number += 1
            return functools.partial(below, instance)

        def __call__(self, *args: Any) -> Any:
            nonlocal number
            number += 1
            return below(*args)

    descriptor = Descriptor()
    put(name, descriptor)
    try:
        assert URING.run(call_everything) == seen
        assert held(name) is descriptor
    finally:
        put(name, TRIOS[name])
    assert number >= calls


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("SocketType.")])
@both
def test_what_is_patched_on_one_object_is_called(backend: Backend, name: str) -> None:
    """Trio's own streams call the methods of their sockets, and the methods of theirs."""
    attribute = name.rpartition(".")[2]
    calls = 0

    async def main() -> int:
        async with trio_pair() as (near, far):
            sock: Any = near.socket
            below = getattr(sock, attribute)

            def wrapper(*args: Any) -> Any:
                nonlocal calls
                calls += 1
                return below(*args)

            setattr(sock, attribute, wrapper)
            for _ in range(3):
                await near.wait_send_all_might_not_block()
                await near.send_all(b"x")
                await near.send_all(b"")
                assert await far.receive_some() == b"x"
                await far.send_all(b"yz")
                assert await near.receive_some(1) == b"y"
                assert await near.receive_some(1) == b"z"
        return calls

    found = backend.run(main)
    used = {"SocketType.send": 3, "SocketType.recv": 6, "SocketType.fileno": 6, "SocketType.close": 1}
    assert found == used.get(name, 0)


@pytest.mark.parametrize("method", ["send_all", "receive_some", "aclose"])
@both
def test_what_is_patched_on_one_stream_is_called(backend: Backend, method: str) -> None:
    async def main() -> int:
        async with trio_pair() as (near, far):
            calls = 0
            below = getattr(near, method)

            async def wrapper(*args: Any) -> Any:
                nonlocal calls
                calls += 1
                await trio.lowlevel.cancel_shielded_checkpoint()
                return await below(*args)

            setattr(near, method, wrapper)
            await near.send_all(b"x")
            assert await far.receive_some() == b"x"
            await far.send_all(b"y")
            assert await near.receive_some() == b"y"
            await trio.aclose_forcefully(near)
            assert await far.receive_some() == b""
            return calls

    assert backend.run(main) == 1


@pytest.mark.parametrize("method", ["accept"])
@both
def test_what_is_patched_on_a_listening_socket_is_called(backend: Backend, method: str) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        sock: Any = listener.socket
        with mock.patch.object(sock, method, wraps=sock.accept) as spy:
            async with await trio.open_tcp_stream(*sock.getsockname()):
                await (await listener.accept()).aclose()
            assert spy.call_count == 1
        await listener.aclose()

    backend.run(main)


@both
def test_a_subclass_with_methods_of_its_own_is_asked(backend: Backend) -> None:
    calls: list[str] = []

    class Traced(_SocketType):
        def send(self, *args: Any) -> Any:
            calls.append("send")
            return super().send(*args)

        def recv(self, *args: Any) -> Any:
            calls.append("recv")
            return super().recv(*args)

    async def main() -> None:
        pair: Any = trio.socket.socketpair()
        near, far = (trio.SocketStream(Traced(sock._sock)) for sock in pair)
        for _ in range(3):
            await near.send_all(b"xy")
            assert await far.receive_some(1) == b"x"
            assert await far.receive_some(1) == b"y"
        await near.aclose()
        assert await far.receive_some() == b""
        await far.aclose()

    backend.run(main)
    assert calls == 3 * ["send", "recv", "recv"] + ["recv"]


# No byte is lost past it


@contextlib.asynccontextmanager
async def trio_pair() -> Any:
    """Two streams that are connected by TCP."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.open_tcp_stream(*listener.socket.getsockname())
    far = await listener.accept()
    await listener.aclose()
    async with near, far:
        yield near, far


async def read_ahead(near: trio.SocketStream, far: trio.SocketStream, data: bytes) -> None:
    """Has ``data`` at ``far`` before anybody asks for it, and after a receive that arms it."""
    for _ in range(2):
        await near.send_all(b"x")
        assert await far.receive_some() == b"x"
    with trio.move_on_after(0.01):
        await far.receive_some()
    await near.send_all(data)
    await trio.sleep(0.01)
    await trio.testing.wait_all_tasks_blocked()


ALL = b"abcdefghijklmnopqrstuvwxyz"
BUFFER = bytearray(3)
RECEIVES: dict[str, Callable[[Any], Any]] = {
    "recv": lambda sock: TRIOS["SocketType.recv"](sock, 3),
    "recv_into": lambda sock: TRIOS["SocketType.recv_into"](sock, BUFFER),
    "recvfrom": lambda sock: TRIOS["SocketType.recvfrom"](sock, 3),
    "recvfrom_into": lambda sock: TRIOS["SocketType.recvfrom_into"](sock, BUFFER),
    "recvmsg": lambda sock: TRIOS["SocketType.recvmsg"](sock, 3),
    "recvmsg_into": lambda sock: TRIOS["SocketType.recvmsg_into"](sock, [BUFFER]),
}


@pytest.mark.parametrize("name", RECEIVES)
def test_trios_own_method_gets_what_was_read_ahead(name: str) -> None:
    """Whoever has kept it from before us calls it."""

    async def main() -> None:
        async with trio_pair() as (near, far):
            await read_ahead(near, far, ALL)
            got = await far.receive_some(3)
            while len(got) < len(ALL):
                received = await RECEIVES[name](far.socket)
                if isinstance(received, tuple):
                    received = received[0]
                got += bytes(BUFFER[:received]) if isinstance(received, int) else received
                got += await TRIOS["SocketStream.receive_some"](far, 2) if len(got) < len(ALL) else b""
                got += await far.receive_some(2) if len(got) < len(ALL) else b""
            assert got == ALL

    URING.run(main)


@needs_completions
def test_the_test_before_has_read_ahead() -> None:
    async def main() -> int:
        async with trio_pair() as (near, far):
            await read_ahead(near, far, ALL)
            return io_statistics().bytes_read_ahead

    assert URING.run(main) >= len(ALL)


@both
def test_trios_own_sends_are_in_order_with_those_of_other_tasks(backend: Backend) -> None:
    async def main() -> bytes:
        near, far = trio.socket.socketpair()
        with near, far:
            for send in (
                lambda: near.send(b"a"),
                lambda: TRIOS["SocketType.send"](near, b"b"),
                lambda: TRIOS["SocketType.sendmsg"](near, [b"c"]),
                lambda: near.send(b"d"),
                lambda: TRIOS["SocketStream.send_all"](trio.SocketStream(near), b"e"),
            ):
                await send()
            return await far.recv(100)

    assert backend.run(main) == b"abcde"


@both
def test_trios_own_accept_gets_who_was_accepted_ahead(backend: Backend) -> None:
    if backend is URING:
        backend = Backend("accepting ahead", trio_uring.RingOptions(accept_ahead=8))

    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = listener.socket.getsockname()
        peers = []
        for accept in (
            listener.accept,
            functools.partial(TRIOS["SocketListener.accept"], listener),
            functools.partial(TRIOS["SocketType.accept"], listener.socket),
            listener.socket.accept,
        ):
            clients = [await trio.open_tcp_stream(*address) for _ in range(2)]
            await trio.testing.wait_all_tasks_blocked()
            for client in clients:
                found = await accept()
                sock = found.socket if isinstance(found, trio.SocketStream) else found[0]
                peers.append(sock.getpeername() == client.socket.getsockname())
                sock.close()
                await client.aclose()
        await listener.aclose()
        assert all(peers)

    backend.run(main)


# What is said of it


def test_what_trio_has_here_is_all_replaced() -> None:
    async def main() -> None:
        assert io_statistics().wrapped == ()
        assert not [name for name in NAMES if held(name) is TRIOS[name]]

    URING.run(main)
    assert trio_uring.capabilities().wrapped == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SocketStream.send_all", "trio.SocketStream.send_all"),
        ("SocketType.recv", "trio._socket._SocketType.recv"),
        ("socket.fromfd", "trio.socket.fromfd"),
        ("trio.aclose_forcefully", "trio.aclose_forcefully"),
    ],
)
def test_statistics_and_capabilities_name_what_is_wrapped(name: str, said: str) -> None:
    async def main() -> None:
        assert io_statistics().wrapped == (said,)
        before = held(name)
        put(name, TRIOS[name])
        assert io_statistics().wrapped == ()
        put(name, before)

    Wrapper(name).put()
    assert trio_uring.capabilities().wrapped == (said,)
    URING.run(main)
    put(name, TRIOS[name])
    assert trio_uring.capabilities().wrapped == ()


def signature(function: Any) -> object:
    try:
        return inspect.signature(function)
    except ValueError:  # some of the standard library's have none
        return None


def test_ours_are_of_the_kind_of_trios() -> None:
    async def main() -> None:
        for name in NAMES:
            ours, trios = held(name), TRIOS[name]
            assert signature(ours) == signature(trios)
            assert (ours.__name__, ours.__qualname__, ours.__doc__) == (
                trios.__name__,
                trios.__qualname__,
                trios.__doc__,
            )
            owner, attribute = patching.find(name)
            with mock.patch.object(owner, attribute) as ours_mocked:
                pass
            put(name, trios)
            with mock.patch.object(owner, attribute) as trios_mocked:
                pass
            put(name, ours)
            assert type(ours_mocked).__name__ == type(trios_mocked).__name__, name

    URING.run(main)


def test_our_attributes_of_trios_sockets_are_declared() -> None:
    from trio_uring.loop.trio_internals import SocketMarks

    sources = [*Path(trio_uring.__file__).parent.rglob("*.py"), *NATIVE.glob("*.c")]
    used = {name for source in sources for name in re.findall(r"\b_uring\w*", source.read_text())}
    assert used == set(SocketMarks.__annotations__)


# Runs in other threads


def test_a_run_on_epoll_beside_ours_is_as_without_it() -> None:
    ready, done = threading.Event(), threading.Event()
    found: list[object] = []
    seen, _ = expected(NAMES[0])

    def beside() -> None:
        ready.wait()
        for _ in range(2):
            found.append(trio.run(call_everything))
        done.set()

    async def main() -> None:
        ready.set()
        while not done.is_set():
            assert await call_everything() == seen

    thread = threading.Thread(target=beside)
    thread.start()
    URING.run(main)
    thread.join()
    assert found == 2 * [seen]


# What makes a run


async def backend_of_run() -> str:
    return trio.lowlevel.current_statistics().io_statistics.backend


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return []


def wrapping(calls: list[str], below: Any) -> Callable[..., Any]:
    def setup_runner(*args: Any, **kwargs: Any) -> Any:
        calls.append("set up")
        return below(*args, **kwargs)

    return setup_runner


def guest_run() -> str:
    import queue

    todo: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
    outcomes: list[Any] = []

    def done(outcome: Any) -> None:
        outcomes.append(outcome)
        todo.put(None)

    async def main() -> str:
        await trio.sleep(0.001)
        await trio.to_thread.run_sync(int)
        return await backend_of_run()

    trio_uring.start_guest_run(main, run_sync_soon_threadsafe=todo.put, done_callback=done)
    while (call := todo.get()) is not None:
        call()
    return outcomes[0].unwrap()  # type: ignore[no-any-return]


STARTS: dict[str, Callable[[], str]] = {
    "run": lambda: trio_uring.run(backend_of_run),
    "guest": guest_run,
}


@pytest.mark.parametrize("start", STARTS)
def test_a_setup_runner_that_was_there_is_called_and_stays(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], start: str
) -> None:
    wrapper = wrapping(calls, RUN.setup_runner)
    monkeypatch.setattr(trio_run, "setup_runner", wrapper)
    for number in range(1, 4):
        assert STARTS[start]() == "io_uring"
        assert calls == number * ["set up"]
        assert RUN.setup_runner is wrapper
    monkeypatch.undo()
    assert trio_uring.run(backend_of_run) == "io_uring"
    assert len(calls) == 3


@pytest.mark.parametrize("over", ["ours", "Trio's"])
def test_a_setup_runner_that_comes_after_install_is_called_and_the_run_is_on_io_uring(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], over: str
) -> None:
    seen, _ = expected(NAMES[0])
    with trio_uring.installed():
        wrapper = wrapping(calls, RUN.setup_runner if over == "ours" else MAKERS[1])
        monkeypatch.setattr(trio_run, "setup_runner", wrapper)
        assert trio.run(call_everything) == seen
        assert trio.run(backend_of_run) == "io_uring"
        assert trio_uring.run(backend_of_run) == "io_uring"
        assert guest_run() == "io_uring"
        assert calls == 4 * ["set up"]
    assert RUN.setup_runner is wrapper
    assert trio.run(backend_of_run) == "epoll"
    monkeypatch.undo()  # puts what was there: ours
    assert trio.run(backend_of_run) == "epoll"


@pytest.mark.parametrize("installed", [False, True])
def test_a_run_that_is_made_within_the_set_up_of_another_leaves_that_on_io_uring(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    inner: list[str] = []

    def setup_runner(*args: Any, **kwargs: Any) -> Any:
        if not inner:
            inner.append("?")
            inner[0] = run(backend_of_run)
        return below(*args, **kwargs)

    below = RUN.setup_runner
    monkeypatch.setattr(trio_run, "setup_runner", setup_runner)
    run: Any = trio.run if installed else trio_uring.run
    with trio_uring.installed() if installed else contextlib.nullcontext():
        assert run(backend_of_run) == "io_uring"
    assert inner == ["io_uring"]
    assert RUN.setup_runner is setup_runner


def test_a_setup_runner_that_stays_over_ours_does_not_call_itself(calls: list[str]) -> None:
    for number in range(3):

        async def main() -> None:
            RUN.setup_runner = wrapping(calls, RUN.setup_runner)

        calls.clear()
        trio_uring.run(main)
        assert trio.run(backend_of_run) == "epoll"
        assert trio_uring.run(backend_of_run) == "io_uring"
        assert len(calls) == 3 * number + 2
    RUN.setup_runner = MAKERS[1]


def test_an_io_manager_that_was_there_is_that_of_runs_on_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    class Traced(RUN.TheIOManager):  # type: ignore[misc]
        pass

    async def kind() -> type:
        return type(RUN.GLOBAL_RUN_CONTEXT.runner.io_manager)

    monkeypatch.setattr(trio_run, "TheIOManager", Traced)
    assert trio.run(kind) is Traced
    assert trio_uring.run(backend_of_run) == "io_uring"
    assert RUN.TheIOManager is Traced
    with trio_uring.installed():
        assert trio.run(backend_of_run) == "io_uring"
    assert trio.run(kind) is Traced


def test_an_io_manager_that_is_made_of_ours_in_a_run_goes_on_to_work() -> None:
    async def main() -> None:
        class Ours(RUN.TheIOManager):  # type: ignore[misc]
            pass

        RUN.TheIOManager = Ours

    trio_uring.run(main)
    for _ in range(2):
        assert trio.run(backend_of_run) == "epoll"
        assert trio_uring.run(backend_of_run) == "io_uring"
    RUN.TheIOManager = MAKERS[0]


def test_a_function_in_the_place_of_the_io_manager_is_called_on_epoll_and_stays(calls: list[str]) -> None:
    async def main() -> None:
        below = RUN.TheIOManager

        def make() -> Any:
            calls.append("made")
            return below()

        RUN.TheIOManager = make

    for number in range(1, 4):
        trio_uring.run(main)
        calls.clear()
        assert trio.run(backend_of_run) == "epoll"
        assert calls == number * ["made"]
        assert trio_uring.run(backend_of_run) == "io_uring"
    RUN.TheIOManager = MAKERS[0]
