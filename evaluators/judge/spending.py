"""What a judge may cost, in one run and in one day, and what it has cost.

Invariant: with answers that cost no more than was estimated, no limit is passed, however many requests are under way: each
reserves what it may cost before it is sent, and gives back what it did not need. Only a request that is repeated because it
timed out may cost several times what it reserved, which counts when it is over. What a day has cost is kept in a SQLite
file, so that it outlives the process; processes of one machine share it. Costs are in the currency of the prices.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servelens.clock import Clock
from servelens.errors import Invalid, Unavailable

_BUSY_S: Final = 10.0
_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS spent (day TEXT, judge TEXT, cost REAL, PRIMARY KEY (day, judge))"
)
_ADD: Final = (
    "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT (day, judge) DO UPDATE SET cost = cost + excluded.cost"
)


@dataclass(frozen=True, slots=True)
class Prices:
    """Per million tokens, in any currency."""

    input: float
    output: float

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        return (tokens_in * self.input + tokens_out * self.output) / 1e6


class Ledger:
    """What the judge ``judge`` has cost, by day (UTC), in the SQLite file ``path``."""

    def __init__(self, path: Path, judge: str, clock: Clock) -> None:
        self._path = path
        self._judge = judge
        self._clock = clock
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as database:
                database.execute(_CREATE)
        except (OSError, Unavailable) as error:
            raise Invalid(
                f"what the day has cost cannot be kept there: {error}",
                field="evaluators[judge].spending_file",
                fix="Name a file in a folder that can be written.",
            ) from error

    def today(self) -> float:
        """Cost of this day so far."""
        with self._open() as database:
            row = database.execute(
                "SELECT cost FROM spent WHERE day = ? AND judge = ?", (self._day(), self._judge)
            ).fetchone()
        return 0.0 if row is None else float(row[0])

    def add(self, cost: float) -> None:
        """Add ``cost`` to this day."""
        with self._open() as database:
            database.execute(_ADD, (self._day(), self._judge, cost))

    def _day(self) -> str:
        return self._clock.now().date().isoformat()

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            # Opened each time: a connection belongs to one thread, and runs come from several.
            with contextlib.closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise Unavailable(f"{self._path} cannot be used: {error}", field="spending_file") from error


class Budget:
    """Limits of one judge; ``None`` is no limit. :meth:`reserve` and :meth:`settle` belong to one event loop at a time."""

    def __init__(self, *, per_run: float | None, per_day: float | None, ledger: Ledger | None) -> None:
        self._per_run = per_run
        self._per_day = per_day
        self._ledger = ledger
        self._spent = 0.0
        self._reserved = 0.0
        self._settled = asyncio.Condition()

    def begin_run(self) -> None:
        """A new run has spent nothing yet."""
        self._spent = 0.0

    def begin_batch(self) -> None:
        """A new event loop has nothing under way, whatever the last one left when it was cut off."""
        self._reserved = 0.0
        self._settled = asyncio.Condition()

    async def reserve(self, cost: float) -> bool:
        """Set ``cost`` aside; waits while others may still give something back. ``False``: a limit is reached."""
        async with self._settled:
            while not self._fits(cost):
                if self._reserved <= 0:
                    return False
                await self._settled.wait()
            self._reserved += cost
            return True

    async def settle(self, reserved: float, cost: float) -> None:
        """Give back what was ``reserved`` and count ``cost``."""
        async with self._settled:
            self._reserved = max(0.0, self._reserved - reserved)
            self._spent += cost
            if self._ledger is not None and cost:
                self._ledger.add(cost)
            self._settled.notify_all()

    def _fits(self, cost: float) -> bool:
        wanted = self._reserved + cost
        if self._per_run is not None and self._spent + wanted > self._per_run:
            return False
        if self._per_day is None:
            return True
        assert self._ledger is not None
        return self._ledger.today() + wanted <= self._per_day
