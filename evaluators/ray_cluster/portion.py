"""A part of a batch, as it is given to an actor: texts, or where the records are.

Invariant: scoring a portion writes nothing and depends on nothing but the portion and the tables, so it may be done again
by another actor, whole or in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final

LARGEST: Final = 500
SMALLEST: Final = 32


@dataclass(frozen=True, slots=True)
class TableAddress:
    """Where an inference table is, and the version that it has at least. ``options`` hold secrets."""

    uri: str
    version: int
    options: dict[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Portion:
    """Some items of a batch, from its ``start``th on: packed texts, or, with a ``table``, ids of records, in order, all of
    them from ``first_day`` to ``last_day``. ``losses``: how often an actor was lost over it.
    """

    start: int
    items: Sequence[Any]
    table: TableAddress | None = None
    first_day: date | None = None
    last_day: date | None = None
    losses: int = 0

    def halves(self) -> tuple[Portion, Portion]:
        """Both halves; each has one loss left before it is divided in turn."""
        middle = len(self.items) // 2
        return (
            replace(self, items=self.items[:middle], losses=1),
            replace(self, start=self.start + middle, items=self.items[middle:], losses=1),
        )


def slices(count: int, actors: int) -> list[range]:
    """``count`` items in portions of nearly equal size: about two for each actor, within the bounds above.

    Not smaller, since an evaluator that raises at every text of a portion counts as broken.
    """
    if count == 0:
        return []
    parts = max(-(-count // LARGEST), min(2 * actors, count // SMALLEST), 1)
    return [range(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
