"""The memory that the kernel reads into and writes from: a caller's buffer, or new bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..ring.native import ffi, uncleared_bytes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from typing_extensions import Self

_from_buffer: Any = ffi.from_buffer
_cast = ffi.cast

LARGE: Final = 1 << 16
"""A result of at least this many bytes is large, and copying it is avoided where possible."""


def pinned(wrapped: Any, name: str, buffer: ReadableBuffer, *, writable: bool = False) -> Memory:
    """Returns a `Memory` for a caller's buffer. If ``buffer`` is not usable, calls the method ``name`` of
    the wrapped file with it, which raises."""
    try:
        view = memoryview(buffer)
        # The pointer of `from_buffer` is not kept: up to CPython 3.12 the garbage collector crashes if it
        # finds both it and its view in a cycle. The view alone keeps the memory where it is.
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
        """Returns the data as bytes: the caller's own object if it gave bytes, else a copy."""
        data = self.held.obj
        return data if type(data) is bytes and len(data) == self.length else self.held.tobytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # When a task is thrown away together with its run, the kernel may still use the memory.
        if kind is not GeneratorExit:
            self.held.release()


def new_bytes(length: int) -> bytes:
    """Returns new bytes for the kernel to fill. This is safe, since nobody else has seen them yet. They
    are not cleared, which would take half as long as reading into them.

    Some processors (AMD, `rep movsb`) copy pages at a fifth of their speed to memory that begins 1 to 31
    bytes into a page. Large results are aligned to 16 bytes, so one in 256 begins there. Such a one is
    made again.
    """
    data = uncleared_bytes(length)
    return data if length < LARGE or id(data) & 4095 != _SLOW_PLACE else uncleared_bytes(length)


# Where in its page a bytes object begins if its data begins 16 bytes into a page.
_SLOW_PLACE: Final = (16 - bytes.__basicsize__ + 1) & 4095
