"""A kernel that refuses system calls for a while: a filter that asks another thread for each answer.

Only the thread that starts it is filtered, and for good; so it belongs into a child process. Linux 5.5.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import threading
from typing import TYPE_CHECKING

import seccomp

if TYPE_CHECKING:
    from collections.abc import Callable

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1
_NEW_LISTENER = 8
_RECEIVE = 0xC0502100
_SEND = 0xC0182101
_CONTINUE = 1
RETURN_0 = -1
# struct seccomp_notif and struct seccomp_notif_resp.
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")


def refuse(call: str, answer: Callable[..., int]) -> None:
    """From now on ``answer`` is asked, with the arguments of each ``call`` of this thread's: the errno,
    0 to let it go on, or `RETURN_0` to have it return 0 and do nothing."""
    listener: list[int] = []
    started = threading.Event()
    thread = threading.Thread(target=_serve, args=(listener, started, answer), daemon=True)
    thread.start()  # before there is a filter, which it would inherit
    program = seccomp.program({call: seccomp.RET_USER_NOTIF})
    seccomp.no_new_privileges()
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SECCOMP[os.uname().machine]
    fd = libc.syscall(number, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    listener.append(fd)
    started.set()


def _serve(listener: list[int], started: threading.Event, answer: Callable[..., int]) -> None:
    started.wait()
    while True:
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener[0], _RECEIVE, notification)
        except OSError as error:
            if error.errno != errno.ENOENT:  # a signal has interrupted the call
                raise
            continue
        identity, _pid, _flags, _number, _arch, _at, *arguments = _NOTIFICATION.unpack(notification)
        refused = answer(*arguments)
        error = 0 if refused == RETURN_0 else refused
        response = _RESPONSE.pack(identity, 0, -error, 0 if refused else _CONTINUE)
        try:
            fcntl.ioctl(listener[0], _SEND, bytearray(response))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
