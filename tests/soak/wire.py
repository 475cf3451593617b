"""What clients and server say to each other: a request is a kind and a size; what follows it, by kind, goes
over the same connection, and then comes the next request, or the end.

All bytes are of one pattern, which both sides know by its seed, and begin at its beginning.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio
    from work import Work

SEED: Final = 22
WHERE: Final = "where.json"
"""The file in which clients find what the server has said."""
_REQUEST: Final = struct.Struct("!cI")

ECHO: Final = b"E"
"""The client sends so many bytes, and gets them back as they come."""
UPLOAD: Final = b"U"
"""The client sends so many bytes, and gets DONE."""
SLOW_UPLOAD: Final = b"S"
"""The same, by a server that is in no hurry."""
STORED: Final = b"W"
"""The same, into a file, which is sent back."""
DOWNLOAD: Final = b"D"
"""The server sends so many bytes."""
BROKEN_UPLOAD: Final = b"B"
"""The client sends what it likes, and goes in the middle of it."""
BROKEN_DOWNLOAD: Final = b"X"
"""The server sends, and the client goes in the middle of it."""
DONE: Final = b"done"


def request(kind: bytes, size: int = 0) -> bytes:
    return _REQUEST.pack(kind, size)


async def next_request(stream: trio.abc.ReceiveStream) -> tuple[bytes, int] | None:
    """None: the end, where there may be one."""
    head = await receive_exactly(stream, _REQUEST.size)
    if not head:
        return None
    kind, size = _REQUEST.unpack(head)
    return kind, size


async def pieces(
    work: Work, stream: trio.abc.ReceiveStream, size: int, most: int = 20_000
) -> AsyncIterator[bytes]:
    """So many bytes, checked, as they come."""
    received = 0
    while received < size:
        data = bytes(await stream.receive_some(min(most, size - received)))
        assert data, f"the end after {received} of {size} bytes"
        work.check(data, received)
        received += len(data)
        yield data


async def receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """All of it, or nothing if the end comes before the first byte."""
    data = bytearray()
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            assert not data, f"the end after {len(data)} of {size} bytes"
            break
        data += more
    return bytes(data)
