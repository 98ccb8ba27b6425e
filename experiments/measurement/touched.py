"""The records that differ between two looks: new ones, and older ones of which more became known since.

Invariant: what is found of an older record *before* is what the earlier look found of it. It is told from the newest
version of the tables without the rows that are new, for older versions go with the next maintenance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from experiments.measurement.exposures import EXCLUDED, exposures
from experiments.measurement.outcomes import (
    Outcomes,
    Target,
    closed_before,
    feedback_rows,
    score_rows,
    with_outcomes,
)
from experiments.measurement.sources import Additions, Sources, Span
from experiments.measurement.values import Reading

_INSTANT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Touched:
    """Records with their outcomes: ``new`` ones, and older ones as they were ``before`` and are ``after``."""

    new: pl.DataFrame
    before: pl.DataFrame
    after: pl.DataFrame


class Comparison:
    """A look and the one before it: ``sources`` at the later versions, and the ``additions`` since the earlier ones.

    ``targets`` and ``earlier`` are what the earlier look read each evaluator on, and its time; ``later`` is the time of
    this one.
    """

    def __init__(
        self,
        sources: Sources,
        reading: Reading,
        additions: Additions,
        targets: Mapping[str, Target],
        earlier: datetime,
        later: datetime,
    ) -> None:
        self._sources = sources
        self._reading = reading
        self._new = exposures(additions.payload.lazy(), reading, keys=True).collect()
        self._scores = score_rows(additions.scores.lazy(), reading).collect()
        self._feedback = feedback_rows(additions.feedback.lazy(), reading).collect()
        self._found = Outcomes(self._scores, self._feedback).with_targets(reading).targets
        self.targets: Mapping[str, Target] = {**self._found, **targets}
        self._earlier = earlier
        self._later = later

    @property
    def targets_moved(self) -> bool:
        """Whether an evaluator of prompts has begun to score answers, so that all of its scores count otherwise."""
        return any(
            target == "response" and self.targets[name] == "request" for name, target in self._found.items()
        )

    def touched(self) -> Touched:
        """All records that differ. The new ones include those that belong to no variant."""
        older = [
            self._records(self._sources.payload(spans).pipe(self._exposed).filter(which))
            for spans, which in self._known()
        ]
        return self._compared(
            self._new, self._without_new(pl.concat([self._new.clear(), *older]).unique("id"))
        )

    def before(self, units: pl.Series) -> pl.DataFrame:
        """All records that ``units`` had at the earlier look, as they were."""
        mine = self._exposed(self._sources.payload()).filter(pl.col("unit").is_in(units.implode()))
        return self._compared(self._new.clear(), self._without_new(self._records(mine))).before

    def _exposed(self, payload: pl.LazyFrame) -> pl.LazyFrame:
        return exposures(payload, self._reading, keys=True).filter(pl.col(EXCLUDED).is_null())

    def _records(self, frame: pl.LazyFrame) -> pl.DataFrame:
        return self._sources.collect(frame)

    def _without_new(self, records: pl.DataFrame) -> pl.DataFrame:
        return records.join(self._new.select("id"), on="id", how="anti")

    def _known(self) -> list[tuple[list[Span], pl.Expr]]:
        """Where older records may be of which more became known, and which of the records there they are."""
        found = []
        was_closed, is_closed = (closed_before(at, self._reading) for at in (self._earlier, self._later))
        late = self._feedback.filter(pl.col("time") <= was_closed)
        for rows in (self._scores, late):
            ids = rows.join(self._new.select("id"), on="id", how="anti")
            if len(ids):
                found.append((_span(ids), pl.col("id").is_in(ids["id"].unique().implode())))
        if self._reading.feedback and is_closed > was_closed:
            found.append(([(was_closed + _INSTANT, is_closed)], pl.lit(value=True)))
        return found

    def _compared(self, new: pl.DataFrame, older: pl.DataFrame) -> Touched:
        reading, sources = self._reading, self._sources
        if not reading.joins:
            return Touched(new, older, older)
        spans = [*_span(new), *_span(older)]
        nothing = self._scores.clear(), self._feedback.clear()
        scores = self._rows(sources.scores(spans), score_rows) if reading.evaluators else nothing[0]
        told = self._rows(sources.feedback(spans), feedback_rows) if reading.feedback else nothing[1]
        later = Outcomes(scores, told, self.targets, self._later)
        if older.is_empty():
            none = with_outcomes(older, later, reading)
            return Touched(with_outcomes(new, later, reading), none, none)
        earlier = Outcomes(
            without(scores, self._scores), without(told, self._feedback), self.targets, self._earlier
        )
        return Touched(
            with_outcomes(new, later, reading),
            with_outcomes(older, earlier, reading),
            with_outcomes(older, later, reading),
        )

    def _rows(
        self, scan: pl.LazyFrame, read: Callable[[pl.LazyFrame, Reading], pl.LazyFrame]
    ) -> pl.DataFrame:
        return self._sources.collect(read(scan, self._reading))


def without(rows: pl.DataFrame, added: pl.DataFrame) -> pl.DataFrame:
    """``rows`` without those of ``added``, which are among them; of rows that are all the same, as many go as were added."""
    if added.is_empty():
        return rows
    same = [name for name in rows.columns if name != "found"]
    times = added.group_by(same).agg(pl.len().alias("times"))
    beside = rows.join(added.select("id"), on="id", how="anti")
    numbered = rows.join(added.select("id"), on="id", how="semi").with_columns(
        pl.int_range(pl.len()).over(same).alias("number")
    )
    kept = numbered.join(times, on=same, how="left", nulls_equal=True).filter(
        pl.col("number") >= pl.col("times").fill_null(0)
    )
    return pl.concat([beside, kept.select(rows.columns)])


def _span(rows: pl.DataFrame) -> list[Span]:
    first, last = rows["time"].min(), rows["time"].max()
    if not (isinstance(first, datetime) and isinstance(last, datetime)):
        return []
    return [(first, last)]
