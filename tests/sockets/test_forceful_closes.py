"""`trio.aclose_forcefully` of a stream: what a program sees of it is the same without a scope."""

from __future__ import annotations

import ssl

import pytest
import trio
from equivalence import URING, Backend, every_backend, needs_completions
from pairs import armed_pair, peer_socket, sees_end
from steps import Steps
from trio.testing import assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

pytestmark = pytest.mark.usefixtures("no_hanging")


class Resource(trio.abc.AsyncResource):
    """Waits for ever when it is closed, unless that is cancelled."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True
        await trio.sleep_forever()


@every_backend
def test_a_stream_is_closed_and_the_call_is_a_checkpoint(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        for _ in range(2):
            with assert_checkpoints():
                await trio.aclose_forcefully(stream)
            assert sees_end(peer)
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        await trio.aclose_forcefully(peer)

    backend.run(main)


@every_backend
def test_who_waits_for_the_stream_is_told(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        async with peer, trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await trio.aclose_forcefully(stream)

    backend.run(main)


@every_backend
@pytest.mark.parametrize("shielded", [False, True])
def test_a_scope_around_it_that_is_cancelled_is_told_and_the_stream_closed(
    backend: Backend, shielded: bool
) -> None:
    async def main() -> tuple[bool, bool]:
        peer, stream = await armed_pair()
        with trio.CancelScope() as scope:
            scope.cancel()
            with trio.CancelScope(shield=shielded):
                await trio.aclose_forcefully(stream)
        async with peer:
            return scope.cancelled_caught, sees_end(peer)

    assert backend.run(main) == (not shielded, True)


@every_backend
def test_a_scope_that_expires_while_it_yields_is_told(backend: Backend) -> None:
    async def main() -> bool:
        peer, stream = await armed_pair()
        with trio.CancelScope(deadline=trio.current_time()) as scope:  # as the next tick finds
            await trio.aclose_forcefully(stream)
        async with peer:
            return scope.cancelled_caught and sees_end(peer)

    assert backend.run(main)


@every_backend
def test_what_is_no_socket_stream_is_closed_in_a_cancelled_scope(backend: Backend) -> None:
    async def main() -> bool:
        resource = Resource()
        await trio.aclose_forcefully(resource)
        return resource.closed

    assert backend.run(main)


@every_backend
def test_an_aclose_that_somebody_has_put_in_place_is_called(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> bool:
        peer, stream = await armed_pair()
        original = trio.SocketStream.aclose
        cancelled = False

        async def aclose(self: trio.SocketStream) -> None:
            nonlocal cancelled
            cancelled = trio.current_effective_deadline() < 0
            await original(self)

        with monkeypatch.context() as patch:
            patch.setattr(trio.SocketStream, "aclose", aclose)
            await trio.aclose_forcefully(stream)
        async with peer:
            return cancelled and peer_socket(stream).fileno() == -1

    assert backend.run(main)


async def _closed_tls() -> trio.SSLStream[trio.SocketStream]:
    """As a handler of a server leaves it."""
    peer, transport = await armed_pair()
    stream = trio.SSLStream(
        transport, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_side=True, https_compatible=True
    )
    await stream.aclose()
    await peer.aclose()
    return stream


@every_backend
@pytest.mark.parametrize("shielded", [False, True])
def test_of_a_closed_stream_of_tls_the_call_is_a_checkpoint(backend: Backend, shielded: bool) -> None:
    async def main() -> tuple[bool, bool]:
        stream = await _closed_tls()
        with assert_checkpoints():
            await trio.aclose_forcefully(stream)
        reached = False
        with trio.CancelScope() as scope:
            scope.cancel()
            with trio.CancelScope(shield=shielded):
                await trio.aclose_forcefully(stream)
            reached = True
        return scope.cancelled_caught, reached

    assert backend.run(main) == (not shielded, shielded)


@needs_completions
def test_a_closed_stream_of_tls_takes_one_step_and_no_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        stream = await _closed_tls()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        with monkeypatch.context() as patch:
            patch.setattr(trio, "CancelScope", None)
            await trio.aclose_forcefully(stream)
        return len(steps.calls) - 1

    assert URING.run(main) == 1


@every_backend
def test_an_aclose_of_tls_that_somebody_has_put_in_place_is_called(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> bool:
        stream = await _closed_tls()
        called = False

        async def aclose(self: trio.SSLStream[trio.SocketStream]) -> None:
            nonlocal called
            called = trio.current_effective_deadline() < 0

        with monkeypatch.context() as patch:
            patch.setattr(trio.SSLStream, "aclose", aclose)
            await trio.aclose_forcefully(stream)
        return called

    assert backend.run(main)


@every_backend
def test_an_aclose_of_another_stream_that_was_put_on_one_of_tls_is_called(backend: Backend) -> None:
    async def main() -> bool:
        stream, (other, _) = await _closed_tls(), memory_stream_pair()
        stream.aclose = other.aclose  # type: ignore[method-assign]
        await trio.aclose_forcefully(stream)
        with pytest.raises(trio.ClosedResourceError):
            await other.send_all(b"x")
        return True

    assert backend.run(main)
