"""Text files."""

from __future__ import annotations

from typing import Any

from .async_file import AsyncFile


class TextFile(AsyncFile[str]):
    def __init__(self, wrapped: Any, buffer: Any) -> None:
        raise NotImplementedError
