"""A DNS forwarder: passes queries on to another server, and its answers back (UDP, IPv4).

    python -m trio_uring dns_forwarder.py 127.0.0.1 5353 9.9.9.9 53
    dig @127.0.0.1 -p 5353 debian.org

Listens at the first address and port, and asks the second. The first has to be one of loopback, since a
forwarder that all the world can ask is used against others. At SIGTERM and Ctrl-C it still answers what it
was asked.
"""

import ipaddress
import secrets
import signal
import sys
from contextlib import suppress

import trio
from trio.socket import AF_INET, SOCK_DGRAM, SocketType

MOST, ATTEMPTS, PATIENCE = 500, 2, 2  # queries at a time; attempts, and seconds for each
HEADER, LONGEST, IS_ANSWER, SERVER_FAILURE = 12, 65535, 0x80, 2
Address = tuple[str, int]


async def ask(query: bytes, upstream: Address) -> bytes:
    for _ in range(ATTEMPTS):  # each from a new port with a random number, which nobody else can guess
        number = secrets.token_bytes(2)
        attempt = trio.move_on_after(PATIENCE)
        with attempt, suppress(OSError), trio.socket.socket(AF_INET, SOCK_DGRAM) as asking:
            await asking.connect(upstream)
            await asking.send(number + query[2:])
            while True:
                answer = await asking.recv(LONGEST)
                if len(answer) >= HEADER and answer[:2] == number and answer[2] & IS_ANSWER:
                    return query[:2] + answer[2:]
    return query[:2] + bytes([query[2] | IS_ANSWER, SERVER_FAILURE]) + query[4:]


async def forward(query: bytes, client: Address, socket: SocketType, upstream: Address) -> None:
    answer = await ask(query, upstream)
    with suppress(OSError):  # the client has gone
        await socket.sendto(answer, client)


async def receive(socket: SocketType, upstream: Address, forwarding: trio.Nursery) -> None:
    while True:
        query, client = await socket.recvfrom(LONGEST)
        is_query = len(query) >= HEADER and not query[2] & IS_ANSWER
        if is_query and len(forwarding.child_tasks) < MOST:  # at more, the client will ask again
            forwarding.start_soon(forward, query, client, socket, upstream)


async def main(host: str, port: int, upstream: Address) -> None:
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.socket.socket(AF_INET, SOCK_DGRAM) as socket,
    ):
        await socket.bind((host, port))
        print(f"{host}:{port}", flush=True)
        async with trio.open_nursery() as forwarding, trio.open_nursery() as receiving:
            receiving.start_soon(receive, socket, upstream, forwarding)
            await anext(signals)
            receiving.cancel_scope.cancel()


if __name__ == "__main__":
    match sys.argv[1:]:
        case host, port, upstream, upstream_port if port.isdecimal() and upstream_port.isdecimal():
            try:
                if not ipaddress.IPv4Address(host).is_loopback:
                    sys.exit(f"{host} is no address of loopback")
                ipaddress.IPv4Address(upstream)  # a name would have to be asked for
            except ipaddress.AddressValueError as error:
                sys.exit(str(error))
            trio.run(main, host, int(port), (upstream, int(upstream_port)))
        case _:
            sys.exit(__doc__)
