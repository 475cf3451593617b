"""Many datagrams by one call: `Datagrams`.

A receive is recvmmsg(2) and a send is sendmmsg(2), each called by the thread that runs the tasks, at once
or when the socket is ready (attempts.py). A server that has many queries waiting pays for one system call
and one step of Trio for all of them. Nothing is received before a task asks, so a receive that is cancelled
has taken nothing, and others may read the socket too.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio
from trio.lowlevel import checkpoint, enable_ki_protection, wait_readable, wait_writable

from ..loop.trio_internals import SocketType
from ..ring.native import missing

if missing is None:
    from .._tasks import receive_many, send_many
    from .attempts import attempt
    from .lookup import ORIGINAL, sockets_of_run

from .families import family_of, type_of
from .one_by_one import receive_one, send_each

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from types import TracebackType

    from typing_extensions import Buffer, Self

    Outgoing = tuple[Buffer, Any] | tuple[Buffer, Any, Sequence[tuple[int, int, Buffer]]]
    _Wait = Callable[[socket.socket], Awaitable[None]]

_MOST: Final = 1024
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_BEFORE_THE_BOUNDS: Final = 256
"""More than the kernel tells before the size of the datagrams that it has put together, without which they
cannot be taken apart: time stamps, marks, losses, as the socket's options ask for them."""
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class Datagram(NamedTuple):
    """A datagram that `Datagrams.receive` has received."""

    data: bytes
    address: Any
    """Who has sent it, as ``recvfrom`` of sockets tells it; None if it has no address."""
    ancdata: list[tuple[int, int, bytes]]
    """The ancillary data: level, type and data of each, as ``recvmsg`` tells them."""
    flags: int
    """What ``recvmsg`` tells: `socket.MSG_TRUNC` if the datagram was longer than there was room for,
    `socket.MSG_CTRUNC` if ancillary data were lost."""


class Datagrams(trio.abc.AsyncResource):
    """Sends and receives many datagrams by one call each, on a datagram socket of Trio's (UDP, UDP Lite or
    Unix). For servers that answer many small queries, as of DNS or QUIC::

        async with trio_uring.Datagrams(sock) as datagrams:
            while True:
                queries = await datagrams.receive()
                await datagrams.send([(answer(query.data), query.address) for query in queries])

    It works in every run, by recvmmsg(2) and sendmmsg(2): on io_uring and on epoll, whatever feature is
    switched off, since it does not use the ring. Where the core cannot be loaded it does the same by recvmsg
    and sendmsg of the standard library: `receive` returns one datagram at a time then, and ``gro`` changes
    nothing. The socket may be used by itself between its calls. One task may receive and another may send
    at a time.

    Args:
      sock: the socket, which belongs to this object from then on.
      count: how many datagrams a call receives at most, 1 to 1,024.
      size: how many bytes of each are received. What is longer is cut, and says so in its ``flags``.
      ancillary_size: bytes for the ancillary data of each, as `socket.CMSG_SPACE` counts them.
      gro: whether the kernel may hand over datagrams of one sender that came in a row as one (``UDP_GRO``,
        Linux 5.0, UDP only), which costs it less. They are taken apart again here: a call may return up to
        64 times ``count`` then. ``size`` has to be 65,535, its default.

    The object keeps ``count`` times the bytes of one datagram, 2 MiB by default, of which the kernel
    gives memory to what was written.

    Raises:
      TypeError: ``sock`` is no socket of Trio's.
      ValueError: it is none for datagrams of these families, or a number is out of its range.
      OSError: the kernel has no ``UDP_GRO``.
    """

    def __init__(
        self,
        sock: trio.socket.SocketType,
        *,
        count: int = 32,
        size: int = 65_535,
        ancillary_size: int = 0,
        gro: bool = False,
    ) -> None:
        if not isinstance(sock, SocketType):
            raise TypeError(f"sock has to be a socket of trio.socket, not {sock!r}")
        self._sock: socket.socket = sock._sock
        self._family = family_of(self._sock)
        if type_of(self._sock) != socket.SOCK_DGRAM or self._family not in _FAMILIES:
            raise ValueError(f"{sock!r} is no socket for datagrams by IP or Unix")
        if not 1 <= count <= _MOST or not 0 <= size <= 65_535 or not 0 <= ancillary_size <= 65_536:
            raise ValueError(
                f"count has to be 1 to {_MOST}, not {count}; size 0 to 65535, not {size}; "
                f"and ancillary_size 0 to 65536, not {ancillary_size}"
            )
        if gro:
            if size != 65_535:
                raise ValueError(f"with gro, size has to be 65535, not {size}")
            if missing is None:
                self._sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
                ancillary_size += _BEFORE_THE_BOUNDS + socket.CMSG_SPACE(4)
        self.socket = sock
        """The socket."""
        self.sent = 0
        """How many datagrams the last `send` has given to the kernel, also if it was cancelled or raised."""
        self._count = count
        self._size = size
        self._ancillary_size = _rounded(ancillary_size)
        self._memory = bytearray((self._ancillary_size + _rounded(size)) * count)
        self._sending = False

    @enable_ki_protection
    async def receive(self, count: int | None = None) -> list[Datagram]:
        """Waits until there is a datagram, and returns all that are there, in order: up to ``count``, or what
        the constructor was told. This is one checkpoint. Cancelled, it has received nothing.

        Raises:
          OSError: as ``recvmsg`` of sockets does. What came before the error was returned by an earlier call.
          trio.ClosedResourceError: the socket is closed, or is closed meanwhile.
          trio.BusyResourceError: another task waits for the socket.
          ValueError: ``count`` is less than 1, or more than the constructor was told.
        """
        if count is None:
            count = self._count
        elif not 1 <= count <= self._count:
            raise ValueError(f"count has to be 1 to {self._count}, not {count}")
        found: list[Datagram] = await self._call(wait_readable, self._receive_now, count)
        return found

    @enable_ki_protection
    async def send(self, datagrams: Iterable[Outgoing]) -> None:
        """Sends datagrams in order, each (data, address) or (data, address, ancillary data). It returns when
        the kernel has them all, and waits where it has no room. `sent` tells how many it has: all, or those
        before the one whose error was raised, or before it was cancelled. This is a checkpoint, also with
        nothing to send.

        An address has to be numeric: names are for `trio.socket.getaddrinfo`. It is None on a connected
        socket. There a refusal of an earlier datagram may be lost, if the kernel meets it in the midst of a
        batch (sendmmsg(2)).

        Raises:
          OSError: as ``sendmsg`` of sockets does.
          ValueError: an address is none of the socket's family, or has to be looked up.
          TypeError: what is to be sent is no such tuple, its data are no bytes, or its ancillary data no
            sequence.
          trio.ClosedResourceError: the socket is closed, or is closed meanwhile.
          trio.BusyResourceError: another task sends.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending these datagrams")
        batch = tuple(datagrams)
        self._sending, self.sent = True, 0
        try:
            if not batch:
                await checkpoint()
            while self.sent < len(batch):
                await self._call(wait_writable, self._send_now, batch)
        finally:
            self._sending = False

    async def send_segments(self, data: Buffer, size: int, address: Any = None) -> None:
        """Sends ``data`` as datagrams of ``size`` bytes, the last of which may be shorter, to one address: up
        to 64, and 65,507 bytes. The kernel takes them apart (``UDP_SEGMENT``, Linux 4.18, UDP only), or the
        network card, which costs less than to send each. Otherwise as `send`: `sent` is 1 or 0.

        Raises:
          OSError: besides, ``EINVAL`` if there are too many, or a datagram does not fit a packet, and ``EIO``
            if the network card cannot make checksums.
          ValueError: ``size`` is not 1 to 65,535.
        """
        if not 1 <= size <= 65_535:
            raise ValueError(f"size has to be 1 to 65535, not {size}")
        segment = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("@H", size))
        await self.send([(data, address, [segment])])

    async def aclose(self) -> None:
        """Closes the socket. Tasks that wait get `trio.ClosedResourceError`. This is a checkpoint."""
        self.socket.close()
        await checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _receive_now(self, sock: socket.socket, count: int) -> list[Datagram]:
        fd = self._fileno(sock)
        if missing is not None:
            return receive_one(sock, Datagram, self._size, self._ancillary_size)
        return receive_many(fd, Datagram, self._memory, count, self._size, self._ancillary_size)

    def _send_now(self, sock: socket.socket, batch: tuple[Outgoing, ...]) -> None:
        fd = self._fileno(sock)
        if missing is not None:
            count, error = send_each(sock, self._family, batch, self.sent)
        else:
            count, error = send_many(fd, self._family, batch, self.sent)
        self.sent += count
        if error is not None:
            raise error

    def _fileno(self, sock: socket.socket) -> int:
        fd = sock.fileno()
        if fd < 0:
            raise trio.ClosedResourceError("this socket was already closed")
        return fd

    def _call(self, wait: _Wait, call: Callable[..., Any], argument: object) -> Awaitable[Any]:
        """Calls a method of this object as Trio calls those of the standard library's sockets."""
        helper = SocketType._nonblocking_helper
        if missing is None:
            sockets = sockets_of_run()
            if sockets is not None:
                return attempt(sockets.run, self._sock, wait, call, argument)
            helper = ORIGINAL.get("_nonblocking_helper") or helper
        called: Awaitable[Any] = helper(self.socket, wait, call, argument)
        return called


def _rounded(size: int) -> int:
    """To 8 bytes, as what stands behind one another in memory has to be."""
    return -(-size // 8) * 8
