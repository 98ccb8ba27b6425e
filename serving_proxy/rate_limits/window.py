"""The count of one key over the last minute, from all workers of the machine.

The window slides in ticks of a sixtieth of its length. A tick counts whole until all of it is older than the window,
so that no stretch of one window's length ever holds more than was allowed; a steady load gets 60/61 of it in return.

What was counted before the last two ticks cannot change any more and is added up once a tick; of the last two the
words are read at each call.
"""

from __future__ import annotations

import hashlib
from typing import Final

from serving_proxy.rate_limits.shared_table import RING, TICKS, SharedTable

_LOW: Final = 0xFFFF_FFFF
_RING_MASK: Final = RING - 1


def hash_of(text: str) -> int:
    """64 bits that stand for a key; never 0, which stands for none."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


class Window:
    """Counts for the key whose hash is ``key``. Times are microseconds since the Unix epoch and those of all
    workers; if the clock is set back by a while, that while's counts are forgotten.
    """

    __slots__ = (
        "_key",
        "_mask",
        "_older",
        "_past",
        "_place",
        "_places",
        "_regions",
        "_table",
        "_tick",
        "tick_us",
    )

    def __init__(self, table: SharedTable, key: int, period_s: float = 60.0) -> None:
        self.tick_us = max(1, round(period_s * 1e6 / TICKS))
        self._table = table
        self._key = key
        self._mask = table.entries - 1
        self._place = key & self._mask
        self._tick = -1
        self._older = 0
        self._past: list[tuple[int, int]] = []
        self._regions: tuple[int, ...] = ()
        self._places: list[int] = []

    def add(self, now_us: int, amount: int) -> None:
        """Count ``amount`` more. Raises TableFull."""
        table = self._table
        words, region, entries = table.words, table.own, table.entries
        place = self._place
        if words[region + place] != self._key:
            place = self._place = table.claim(self._key, now_us // 1_000_000)
        tick = now_us // self.tick_us
        at = region + entries + entries + place * RING + (tick & _RING_MASK)
        word, stamp = words[at], tick & _LOW
        if word >> 32 == stamp:
            amount += word & _LOW
        else:
            words[region + entries + place] = (tick + TICKS + 1) * self.tick_us // 1_000_000 + 1
        words[at] = stamp << 32 | min(amount, _LOW)

    def take_back(self, now_us: int, amount: int) -> None:
        """Undo :meth:`add` of the same moment."""
        table = self._table
        ring = table.own + 2 * table.entries + self._place * RING
        table.words[ring + (now_us // self.tick_us & _RING_MASK)] -= amount

    def total(self, now_us: int) -> int:
        """What all workers have counted within the window that ends now."""
        tick = now_us // self.tick_us
        self._table.refresh()
        if tick != self._tick or self._regions is not self._table.regions:
            self._look_back(tick)
        return self._older + self._count_of(tick - 1, tick)

    def wait_s(self, now_us: int, excess: int) -> float:
        """Seconds until ``excess`` of the total have left the window; its whole length if there is less."""
        total = self.total(now_us)
        tick = self._tick
        recent = [(each, self._count_of(each)) for each in (tick - 1, tick)]
        if excess <= total:
            for counted, count in [*self._past, *recent]:
                excess -= count
                if excess <= 0:
                    return ((counted + TICKS + 1) * self.tick_us - now_us) * 1e-6
        return TICKS * self.tick_us * 1e-6

    def _look_back(self, tick: int) -> None:
        table = self._table
        self._tick = tick
        self._regions = table.regions
        self._places = [table.find(region, self._key, self._mask) for region in self._regions]
        counts = ((old, self._count_of(old)) for old in range(tick - TICKS, tick - 1))
        self._past = [(old, count) for old, count in counts if count]
        self._older = sum(count for _, count in self._past)

    def _count_of(self, *ticks: int) -> int:
        table, key = self._table, self._key
        words, rings = table.words, 2 * table.entries
        total = 0
        for number, region in enumerate(self._regions):
            place = self._places[number]
            found = words[region + place]
            if found != key:
                if not found:
                    continue
                place = self._places[number] = table.find(region, key, self._mask)
                if words[region + place] != key:
                    continue
            ring = region + rings + place * RING
            for tick in ticks:
                word = words[ring + (tick & _RING_MASK)]
                if word >> 32 == tick & _LOW:
                    total += word & _LOW
        return total
