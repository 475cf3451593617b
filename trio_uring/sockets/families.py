"""What a socket is, asked in less time than `socket.socket` takes, which makes an enumeration's member."""

from __future__ import annotations

import _socket
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

STREAM_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})
"""Those whose stream sockets work by completions."""

type_of: Final[Callable[[socket.socket], int]] = _socket.socket.type.__get__
family_of: Final[Callable[[socket.socket], int]] = _socket.socket.family.__get__
