"""The server programs that are measured, each for one kind of work, and what they answer."""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import trustme

from measure.processes import SERVER_CPU, Child
from measure.programs import Programs, build, default_folder
from sides.packages import missing
from sides.runtimes import RUNTIMES, TRIO, WrongBackendError, polled_with, seen
from sides.servers.start import TLS_KINDS
from sides.servers.unsupported import UNSUPPORTED


@attrs.frozen
class Server:
    """A server program of a side, for one kind of work."""

    side: str
    """A runtime's key, one with "-protocols" behind it, or "limit"."""
    kind: str

    @property
    def runtime(self) -> str:
        return self.side.removesuffix("-protocols")

    @property
    def unsupported(self) -> str:
        """Why there is no such server; empty where there is."""
        return UNSUPPORTED.get((self.runtime, self.kind), "") or missing(self.runtime)

    @property
    def over_tls(self) -> bool:
        return self.kind in (*TLS_KINDS, "hypercorn-tls")

    def start(self, cpu: int = SERVER_CPU) -> Child:
        return Child([*self._program(), *self._options()], cpu=cpu)

    def seen(self, pid: int, answer: dict[str, object]) -> str:
        """The backend that the running server answered, checked against what it has open."""
        if self.side != "limit":
            return seen(self.runtime, str(answer["backend"]), pid)
        if polled_with(pid) != {"io_uring"}:
            raise WrongBackendError(f"the limit was to work with io_uring alone: {polled_with(pid)}")
        return str(answer["seen"])

    def seen_after_load(self, pid: int, answer: dict[str, Any]) -> str:
        """The same when its clients are gone, with how it received from them."""
        text = self.seen(pid, answer)
        if self.runtime not in TRIO or self.kind in RECEIVE_ONCE:
            return text
        runtime = RUNTIMES[self.runtime]
        if bool(answer["multishots"]) != runtime.multishot:
            raise WrongBackendError(
                f"this was to be {runtime.label}, but {answer['multishots']} multishot receives ended"
            )
        return f"{text}; it received {'' if runtime.multishot else 'nothing '}by multishot"

    def _program(self) -> list[str]:
        if self.side == "limit":
            return [str(programs().limit), self.kind]
        module = "trio_server" if self.runtime in TRIO else "asyncio_server"
        if self.kind == "greedy":
            module = "greedy_server"
        if self.kind in HYPERCORN:
            return [sys.executable, "-m", "sides.servers.hypercorn_server", "--runtime", self.runtime]
        return [
            sys.executable,
            "-m",
            f"sides.servers.{module}",
            "--runtime",
            self.runtime,
            "--kind",
            self.kind,
        ]

    def _options(self) -> list[str]:
        return ["--certificate", str(_certificate())] if self.over_tls else []


HYPERCORN = ("hypercorn", "hypercorn-tls")
RECEIVE_ONCE = ("connections", "udp", "udp-batches")
"""Kinds of servers that have no connection from which they receive a second time."""


@cache
def programs() -> Programs:
    return build(default_folder())


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def authority() -> Path:
    """PEM: who has signed the servers' certificate."""
    path = Path(_folder().name, "authority.pem")
    _authority().cert_pem.write_to_path(str(path))
    return path


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def _certificate() -> Path:
    """PEM: a key and its chain."""
    path = Path(_folder().name, "certificate.pem")
    issued = _authority().issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    return path
