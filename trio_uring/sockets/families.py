"""The type and the family of a socket, as numbers: `socket.socket` makes a member of an enumeration each
time that it is asked, which takes ten times as long."""

from __future__ import annotations

import _socket
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

STREAM_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})
"""The families whose stream sockets work by completions."""

type_of: Final[Callable[[socket.socket], int]] = _socket.socket.type.__get__
family_of: Final[Callable[[socket.socket], int]] = _socket.socket.family.__get__
