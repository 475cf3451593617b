"""Clients on Trio: httpx fetches files and trio-websocket exchanges messages, all at once.

A plain Trio program, which knows nothing of trio-uring. Usage: client.py ADDRESS
FOLDER, where FOLDER is the server's, to compare every answer with. Prints what it
did as a line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import attrs
import httpx
import trio
from trio_websocket import open_websocket_url

WORKERS = 20
REQUESTS_PER_WORKER = 20
WEBSOCKETS = 20
MESSAGES_PER_WEBSOCKET = 40
TIME_LIMIT = 20


async def fetch(client: httpx.AsyncClient, files: list[tuple[str, bytes]], first: int) -> None:
    for number in range(first, first + REQUESTS_PER_WORKER):
        name, content = files[number % len(files)]
        answer = await client.get(f"/files/{name}")
        if answer.status_code != 200 or answer.content != content:
            raise ValueError(f"{name}: status {answer.status_code}, {len(answer.content)} bytes")


async def talk(address: str, number: int) -> None:
    async with open_websocket_url(f"{address}/echo") as websocket:
        for count in range(MESSAGES_PER_WEBSOCKET):
            message = f"message {count} of {number}: " + "x" * count
            await websocket.send_message(message)
            if (echo := await websocket.get_message()) != message:
                raise ValueError(f"sent {message!r}, got {echo!r}")


async def main(address: str, folder: str) -> None:
    files = [(path.name, path.read_bytes()) for path in sorted(Path(folder).iterdir())]
    with trio.fail_after(TIME_LIMIT):
        async with httpx.AsyncClient(base_url=address, timeout=TIME_LIMIT) as client:
            async with trio.open_nursery() as nursery:
                for number in range(WORKERS):
                    nursery.start_soon(fetch, client, files, number)
                for number in range(WEBSOCKETS):
                    nursery.start_soon(talk, address.replace("http://", "ws://"), number)
            server = (await client.get("/statistics")).raise_for_status().json()
    report = {
        "requests": WORKERS * REQUESTS_PER_WORKER,
        "messages": WEBSOCKETS * MESSAGES_PER_WEBSOCKET,
        "client": attrs.asdict(trio.lowlevel.current_statistics().io_statistics),
        "server": server,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
