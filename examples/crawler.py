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


class Crawl:
    def __init__(self, client: httpx.AsyncClient, robots: RobotFileParser, origin: str, most: int) -> None:
        self.client, self.robots, self.origin, self.most = client, robots, origin, most
        self.turns = trio.CapacityLimiter(AT_A_TIME)
        self.seen: set[str] = set()  # so there are never more than ``most`` tasks

    def add(self, address: str, nursery: trio.Nursery) -> None:
        new = address.startswith(self.origin) and address not in self.seen
        if new and len(self.seen) < self.most and self.robots.can_fetch(NAME, address):
            self.seen.add(address)
            nursery.start_soon(self.visit, address, nursery)

    async def visit(self, address: str, nursery: trio.Nursery) -> None:
        try:
            async with self.turns:
                with trio.fail_after(PATIENCE):
                    status, body, links = await self.fetch(address)
            print(status, len(body), address, flush=True)
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
            print(type(error).__name__, 0, address, flush=True)
            return
        for link in links:
            with suppress(ValueError):  # which is no address
                self.add(urldefrag(urljoin(address, link)).url, nursery)

    async def fetch(self, address: str) -> tuple[int, bytearray, list[str]]:
        body = bytearray()
        async with self.client.stream("GET", address) as response:
            async for piece in response.aiter_bytes():
                body += piece[: LARGEST - len(body)]
                if len(body) == LARGEST:
                    break
        is_page = response.headers.get("content-type", "").startswith("text/html")
        links = Links(body.decode(errors="replace")).found if is_page else []
        return response.status_code, body, links + response.headers.get_list("location")


async def main(start: str, most: int) -> None:
    origin, robots = urljoin(start, "/"), RobotFileParser()
    async with httpx.AsyncClient(headers={"user-agent": NAME}, timeout=PATIENCE) as client:
        try:
            answer = await client.get(urljoin(origin, "robots.txt"))
        except httpx.HTTPError as error:
            sys.exit(f"{origin} cannot be had: {error}")
        robots.parse(answer.text.splitlines() if answer.is_success else [])
        async with trio.open_nursery() as nursery:
            Crawl(client, robots, origin, most).add(urldefrag(start).url, nursery)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at Ctrl-C there is nothing to put away
    match sys.argv[1:]:
        case start, most if start.startswith(("http://", "https://")) and most.isdecimal():
            trio.run(main, start, int(most))
        case _:
            sys.exit(__doc__)
