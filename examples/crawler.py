"""Crawls a web site with httpx: pages of one host, each once, ten at a time, and what robots.txt allows.

    python -m trio_uring crawler.py https://example.org/ 100

Prints status, bytes and address of 100 pages at most. Of each it reads a MiB at most, for 20 seconds at most.
"""

import signal
import sys
from contextlib import suppress
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin
from urllib.robotparser import RobotFileParser

import httpx
import trio

NAME, AT_A_TIME, PATIENCE, LARGEST = "trio-uring-example", 10, 20, 1 << 20


class Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


async def fetch(client: httpx.AsyncClient, address: str) -> tuple[int | str, int, list[str]]:
    body = bytearray()
    try:
        with trio.fail_after(PATIENCE):
            async with client.stream("GET", address) as response:
                async for piece in response.aiter_bytes():
                    body += piece[: LARGEST - len(body)]
                    if len(body) == LARGEST:
                        break
    except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
        return type(error).__name__, 0, []
    is_page = response.headers.get("content-type", "").startswith("text/html")
    links = Links(body.decode(errors="replace")).found if is_page else []
    return response.status_code, len(body), links + response.headers.get_list("location")


async def main(start: str, most: int) -> None:
    origin, robots, turns = urljoin(start, "/"), RobotFileParser(), trio.CapacityLimiter(AT_A_TIME)
    seen: set[str] = set()  # so there are never more than ``most`` tasks

    def add(address: str) -> None:
        new = address.startswith(origin) and address not in seen
        if new and len(seen) < most and robots.can_fetch(NAME, address):
            seen.add(address)
            nursery.start_soon(visit, address)

    async def visit(address: str) -> None:
        async with turns:
            status, size, links = await fetch(client, address)
        print(status, size, address, flush=True)
        for link in links:
            with suppress(ValueError):  # which is no address
                add(urldefrag(urljoin(address, link)).url)

    async with httpx.AsyncClient(headers={"user-agent": NAME}, timeout=PATIENCE) as client:
        try:
            answer = await client.get(urljoin(origin, "robots.txt"))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            sys.exit(f"{origin} cannot be had: {error}")
        robots.parse(answer.text.splitlines() if answer.is_success else [])
        async with trio.open_nursery() as nursery:
            add(urldefrag(start).url)


if __name__ == "__main__":
    if len(sys.argv) != 3 or not (sys.argv[1].startswith("http") and sys.argv[2].isdecimal()):
        sys.exit(__doc__)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at Ctrl-C there is nothing to put away
    trio.run(main, sys.argv[1], int(sys.argv[2]))
