"""What replaces Trio's files and paths while there are runs with `RingOptions.files`.

The names are `trio.open_file`, `trio.wrap_file` and the methods of `trio.Path` that `Path` defines too. In a
run with that option they do what ours do. In any other run, and outside of runs, each calls Trio's own.

A path stays what it is, even if it is of somebody's subclass: our method is called on a `Path` made of it,
and a path that it returns is turned into the class of the first. The methods that read directories
stay Trio's, since they take threads in any case.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any, Final

import trio

from ..loop.trio_internals import Replaced, context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ORIGINAL: Final[dict[str, Any]] = {}
"""Trio's own functions, by name."""
PATHS_ORIGINAL: Final[dict[str, Any]] = {}
"""The own methods of `trio.Path`, by name."""


@functools.cache
def table() -> tuple[Replaced, ...]:
    """Returns the replacements. They are made, and what they need is imported, when first asked for: most
    runs have no use for them."""
    from . import opening, path

    functions = {"open_file": _open_file(opening.open_file), "wrap_file": _wrap_file(opening.wrap_file)}
    names = vars(path.Path).keys() & vars(trio.Path).keys() - {"glob", "iterdir", "rglob", "walk"}
    methods = {name: _method(name, path.Path) for name in sorted(names) if not name.startswith("_")}
    return Replaced(trio, functions, ORIGINAL), Replaced(trio.Path, methods, PATHS_ORIGINAL)


def _are_ours() -> bool:
    """Whether the caller's run uses our files."""
    runner = getattr(context, "runner", None)
    return runner is not None and getattr(runner.io_manager, "has_files", False)


def _open_file(ours: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    def open_file(*args: Any, **kwargs: Any) -> Awaitable[Any]:
        opened: Awaitable[Any] = (ours if _are_ours() else ORIGINAL["open_file"])(*args, **kwargs)
        return opened

    return open_file


def _wrap_file(ours: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def wrap_file(file: Any) -> Any:
        # Ours hands other files to `trio.wrap_file`, which is this function.
        is_for_ours = type(file) is io.FileIO and not file.closed and _are_ours()
        return ours(file) if is_for_ours else ORIGINAL["wrap_file"](file)

    return wrap_file


def _method(name: str, kind: type[trio.Path]) -> Callable[..., Awaitable[Any]]:
    ours = getattr(kind, name)

    def method(self: trio.Path, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        # For what it has no operation for, a method of ours calls Trio's, which is this function.
        if isinstance(self, kind) or not _are_ours():
            awaitable: Awaitable[Any] = PATHS_ORIGINAL[name](self, *args, **kwargs)
            return awaitable
        return on_io_uring(self, *args, **kwargs)

    async def on_io_uring(self: trio.Path, *args: Any, **kwargs: Any) -> Any:
        made = await ours(kind(self), *args, **kwargs)
        return type(self)(made) if isinstance(made, kind) else made

    return method
