"""Descriptors that a peer sends along with data, and that nobody has asked for, are closed by the kernel."""

from __future__ import annotations

import os
import socket

import pytest
import trio
from equivalence import Backend, descriptors_so_far, every_backend, open_descriptors

pytestmark = pytest.mark.usefixtures("no_hanging")

MOST = 253
"""How many one message may have (SCM_MAX_FD)."""


@every_backend
@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("is_read", [True, False])
def test_descriptors_that_nobody_has_asked_for_are_closed(
    backend: Backend, is_cancelled: bool, is_read: bool, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe

    async def main() -> None:
        near, far = socket.socketpair()
        with far:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
            before = descriptors_so_far()
            for _ in range(4):
                socket.send_fds(far, [b"data"], [writer] * MOST)
                if is_cancelled:
                    with trio.move_on_after(0):
                        await stream.receive_some(1)
            if is_read:
                got = b""
                while len(got) < 16:
                    got += await stream.receive_some(5)
            assert open_descriptors() == before
            await stream.aclose()

    backend.run(main)
    os.close(writer)
    assert os.read(reader, 1) == b""  # nobody has it any more
