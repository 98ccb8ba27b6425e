"""What a source of cases is: a table that is followed by version, and which of its new rows match a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

import polars as pl

from collector.table import Table
from relabel.selection.rule import CaseRule
from servelens.errors import Unavailable

ID: Final = "databricks_request_id"
ROWS_PER_READ: Final = 50_000

MATCH_SCHEMA: Final = pl.Schema(
    {
        ID: pl.String(),
        "request_time": pl.Datetime("us", "UTC"),
        "rule": pl.Int32(),
        "extreme": pl.Float64(),
        "evaluator": pl.String(),
        "evaluator_version": pl.String(),
        "target": pl.String(),
        "score": pl.Float64(),
        "label": pl.String(),
        "detail": pl.String(),
        "sampled": pl.Float64(),
    }
)
"""A match: a record and the number of the rule (in the endpoint's list) that it meets. ``extreme`` orders the matches of
one rule, the largest first; ``detail`` is a sentence; ``sampled`` the probability with which the record was drawn."""


@dataclass(frozen=True, slots=True)
class Found:
    """Matches, with the columns of :data:`MATCH_SCHEMA`, and what the source remembers from now on (JSON)."""

    matches: pl.DataFrame
    state: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Follows ``table``. ``numbered`` are its rules with their numbers.

    ``reads_past``: whether the first run looks at what is in the table already, or begins with what comes after it.
    ``look_back``: how far back of the last run to look where the table's history no longer reaches back to it (``None``:
    at everything).
    """

    @property
    def name(self) -> str:
        """Of its cursor; at most 64 characters."""
        ...

    @property
    def table(self) -> Table: ...

    @property
    def columns(self) -> Sequence[str]:
        """What is read of the table's new rows."""
        ...

    @property
    def numbered(self) -> Mapping[int, CaseRule]: ...

    @property
    def reads_past(self) -> bool: ...

    @property
    def look_back(self) -> timedelta | None: ...

    def find(self, rows: pl.DataFrame, state: Mapping[str, Any]) -> Found:
        """What matches among the new ``rows``. The same rows and ``state`` give the same matches while the tables stand
        still. Raises :class:`~servelens.errors.Unavailable` when a table cannot be read.
        """
        ...


def matches(rows: pl.DataFrame, number: int, **columns: pl.Expr) -> pl.DataFrame:
    """``rows`` (with id and time) as matches of the rule ``number``; ``columns`` fill others of :data:`MATCH_SCHEMA`."""
    given = {"rule": pl.lit(number), **columns}
    filled = rows.with_columns(**given)
    return filled.select(
        (pl.col(name) if name in filled.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in MATCH_SCHEMA.items()
    )


def all_matches(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The matches of several rules."""
    return pl.concat([MATCH_SCHEMA.to_frame(), *parts])


def collected(frame: pl.LazyFrame) -> pl.DataFrame:
    """The rows. Raises :class:`~servelens.errors.Unavailable` when the table cannot be read."""
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"a table cannot be read: {error}") from error
