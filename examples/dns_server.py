"""A DNS server: tells the IPv4 addresses of the names in a file like /etc/hosts (UDP, IPv4).

    python -m trio_uring dns_server.py 127.0.0.1 5353 hosts

All queries that have come are received by one call, and answered by another.
"""

import ipaddress
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path

import trio
from trio.socket import AF_INET, SOCK_DGRAM

from trio_uring import Datagrams

HEADER, LONGEST, SECONDS, A, IN = struct.Struct("!6H"), 512, 60, 1, 1
ANSWER, OPERATION, AUTHORITATIVE, WISHES, NO_SUCH_NAME, NOT_IMPLEMENTED = 0x8000, 0x7800, 0x400, 0x100, 3, 4


def read_hosts(path: Path) -> dict[bytes, bytes]:
    """The address of each name, as both stand in a message."""
    hosts = {}
    for line in path.read_text().splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        for name in names if ":" not in address else ():
            labels = name.lower().encode("ascii").strip(b".").split(b".")
            encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
            hosts[encoded] = ipaddress.IPv4Address(address).packed
    return hosts


def answer(query: bytes, hosts: dict[bytes, bytes]) -> bytes | None:
    """What to send back; None for what is no query of one question."""
    if not HEADER.size <= len(query) <= LONGEST:
        return None
    number, flags, questions, *_ = HEADER.unpack_from(query)
    end = query.find(b"\0", HEADER.size) + 1  # of the name
    if flags & ANSWER or questions != 1 or not end or len(query) < end + 4:
        return None
    name, (kind, of_class) = query[HEADER.size : end].lower(), struct.unpack_from("!2H", query, end)
    flags, record = ANSWER | AUTHORITATIVE | flags & (OPERATION | WISHES), b""
    if flags & OPERATION or of_class != IN:
        flags |= NOT_IMPLEMENTED
    elif name not in hosts:
        flags |= NO_SUCH_NAME
    elif kind == A:
        record = struct.pack("!3HIH", 0xC000 | HEADER.size, A, IN, SECONDS, 4) + hosts[name]
    return HEADER.pack(number, flags, 1, bool(record), 0, 0) + query[HEADER.size : end + 4] + record


async def serve(datagrams: Datagrams, hosts: dict[bytes, bytes]) -> None:
    while True:
        queries = await datagrams.receive()
        answers = [(data, query.address) for query in queries if (data := answer(query.data, hosts))]
        while answers:
            with suppress(OSError):  # of a client that cannot be reached, behind which it goes on
                await datagrams.send(answers)
            answers = answers[datagrams.sent + 1 :]


async def main(host: str, port: int, hosts: dict[bytes, bytes]) -> None:
    socket = trio.socket.socket(AF_INET, SOCK_DGRAM)
    await socket.bind((host, port))
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with Datagrams(socket, size=LONGEST + 1) as datagrams, trio.open_nursery() as serving:
            print("{}:{}".format(*socket.getsockname()), flush=True)
            serving.start_soon(serve, datagrams, hosts)
            await anext(signals)
            serving.cancel_scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[2].isdecimal() or not Path(sys.argv[3]).is_file():
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], int(sys.argv[2]), read_hosts(Path(sys.argv[3])))
