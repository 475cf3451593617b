"""A task that wants to run now and then, and keeps how late it ran.

How long it sleeps is exponentially distributed, so that it samples all moments of those
beside it alike.
"""

from __future__ import annotations

import random

import trio

from measure.percentiles import percentiles

SLEEP = 0.3e-3
"""Seconds, on average."""


class Bystander:
    """Any number of tasks may run it."""

    def __init__(self) -> None:
        self._late: list[float] = []

    async def run(self) -> None:
        while True:
            moment = trio.current_time() + random.expovariate(1 / SLEEP)
            await trio.sleep_until(moment)
            self._late.append(trio.current_time() - moment)

    def late_by(self) -> dict[str, float]:
        return percentiles(self._late)
