"""The memory that transfers go to and come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..ring.native import ffi, uncleared_bytes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from typing_extensions import Self

_from_buffer: Any = ffi.from_buffer
_cast = ffi.cast

LARGE: Final = 1 << 16
"""Bytes from which on a result is large: it is not copied where that can be helped."""


def pinned(wrapped: Any, name: str, buffer: ReadableBuffer, *, writable: bool = False) -> Memory:
    """Where a caller's buffer is, and will be; else what the method ``name`` raises."""
    try:
        view = memoryview(buffer)
        # Not kept: up to CPython 3.12 the garbage collector crashes on a view in a cycle of
        # which such a pointer lives. The view alone keeps the memory where it is.
        address = _cast("char *", _from_buffer(view, require_writable=writable))
    except (TypeError, ValueError, BufferError):
        getattr(wrapped, name)(buffer)
        raise
    return Memory(address, view)


class Memory:
    """A caller's buffer, which stays where it is until the ``with`` block ends."""

    __slots__ = ("address", "held", "length")

    def __init__(self, address: Any, held: memoryview) -> None:
        self.address = address
        self.length = held.nbytes
        self.held = held

    def as_bytes(self) -> bytes:
        """The bytes, which nobody will change: the caller's own if that is what it gave."""
        data = self.held.obj
        return data if type(data) is bytes and len(data) == self.length else self.held.tobytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A task that is thrown away with its run leaves the memory to the kernel.
        if kind is not GeneratorExit:
            self.held.release()


def new_bytes(length: int) -> bytes:
    """Bytes that nobody else has seen yet, so that the kernel may fill them. They are not
    cleared first, which would take half as long as reading them.

    Some processors (AMD, `rep movsb`) copy pages at a fifth of their speed to memory that begins
    1 to 31 bytes into a page. Of large results, which are aligned to 16 bytes, one in 256 does.
    """
    data = uncleared_bytes(length)
    return data if length < LARGE or id(data) & 4095 != _SLOW_PLACE else uncleared_bytes(length)


_SLOW_PLACE: Final = (16 - bytes.__basicsize__ + 1) & 4095  # in its page, of the object
