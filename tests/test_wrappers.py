"""Other people's functions in the place of Trio's: each is called as on epoll, whenever it came, and is
where its owner left it afterwards; and no byte is lost on the way past it.

The names are those of `replacement.TABLE`. Programs that patch Trio before trio_uring is imported
are processes of their own.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import socket
import threading
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import trio
import trio_uring
from child_process import output_of
from equivalence import DEFAULT, EPOLL, Backend, every_backend
from trio._core import _run as trio_run
from trio._socket import _SocketType

from trio_uring import io_manager, replacement
