"""An endpoint's tables at fixed versions, as far as an experiment's time reaches.

Invariant: what is read depends on the versions and the times alone, so a look can be repeated. All three tables have
the time of the request, which says what files are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from collector.table import Changes, Table
from experiments.measurement.measured import Versions
from experiments.measurement.outcomes import Engine
from experiments.measurement.values import Reading
from servelens.errors import Unavailable

Span = tuple[datetime, datetime]
"""The first moment and the last, both of them included."""

_PAYLOAD_COLUMNS: Final = (
    "databricks_request_id",
    "request_time",
    "status_code",
    "execution_duration_ms",
    "served_entity",
    "experiment",
    "variant",
    "unit",
    "phase",
    "propensity",
    "is_shadow",
    "is_stream",
    "time_to_first_token_ms",
    "input_tokens",
    "output_tokens",
    "error_type",
    "client_disconnected",
)
_SCORE_COLUMNS: Final = (
    "databricks_request_id",
    "request_time",
    "evaluator",
    "target",
    "score",
    "unscored_reason",
    "scored_at",
)
_FEEDBACK_COLUMNS: Final = ("databricks_request_id", "request_time", "name", "value", "feedback_time")


@dataclass(frozen=True, slots=True)
class Additions:
    """Rows that commits added to each table; ``removed`` when they also took rows away that may have counted."""

    payload: pl.DataFrame
    scores: pl.DataFrame
    feedback: pl.DataFrame
    removed: bool


class Sources:
    """The rows of requests in [``since``, ``until``) that ``tables`` have at ``versions``."""

    def __init__(
        self,
        tables: EndpointTables,
        versions: Versions,
        reading: Reading,
        since: datetime | None,
        until: datetime | None,
    ) -> None:
        self._tables = tables
        self._versions = versions
        self._reading = reading
        self._since = since
        self._until = until
        self._scans: dict[str, pl.LazyFrame] = {}

    def payload(self, spans: Sequence[Span] | None = None) -> pl.LazyFrame:
        """Records of the inference table, of requests in one of ``spans`` where some are given."""
        return self._scan(self._tables.payload, self._versions.payload, spans)

    def scores(self, spans: Sequence[Span] | None = None) -> pl.LazyFrame:
        """Scores of these requests."""
        return self._scan(self._tables.scores, self._versions.scores, spans)

    def feedback(self, spans: Sequence[Span] | None = None) -> pl.LazyFrame:
        """Feedback on these requests, whenever it came."""
        return self._scan(self._tables.feedback, self._versions.feedback, spans)

    def additions(self, since: Versions) -> Additions:
        """What was added after the versions ``since``. Raises :class:`~servelens.errors.Missing` where a table's history
        does not reach back so far.
        """
        tables, now = self._tables, self._versions
        payload = self._changes(tables.payload, since.payload, now.payload, _PAYLOAD_COLUMNS)
        scores = Changes(self._nothing(tables.scores), now.scores)
        feedback = Changes(self._nothing(tables.feedback), now.feedback)
        if self._reading.evaluators:
            scores = self._changes(tables.scores, since.scores, now.scores, _SCORE_COLUMNS)
        if self._reading.feedback:
            feedback = self._changes(tables.feedback, since.feedback, now.feedback, _FEEDBACK_COLUMNS)
        own = (
            (payload, pl.col("experiment") == self._reading.experiment.name),
            (scores, pl.col("evaluator").is_in(self._reading.evaluators)),
            (feedback, pl.col("name").is_in(self._reading.feedback)),
        )
        removed = any(
            changes.removed is not None
            and changes.removed.filter(counts & self._within(None, dates=False)).height > 0
            for changes, counts in own
        )
        rows = [changes.frame.filter(self._within(None, dates=False)) for changes, _ in own]
        return Additions(rows[0], rows[1], rows[2], removed)

    def collect(self, frame: pl.LazyFrame, engine: Engine = "streaming") -> pl.DataFrame:
        """The rows of a query. Raises :class:`~servelens.errors.Unavailable` when files cannot be read."""
        try:
            return frame.collect(engine=engine)
        except (pl.exceptions.PolarsError, OSError) as error:
            endpoint = self._reading.experiment.endpoint
            raise Unavailable(f"the tables of {endpoint} cannot be read: {error}") from error

    def _scan(self, table: Table, version: int | None, spans: Sequence[Span] | None) -> pl.LazyFrame:
        if version is None or spans == []:
            return self._nothing(table).lazy()
        if table.uri not in self._scans:
            self._scans[table.uri] = table.scan(version=version)
        return self._scans[table.uri].filter(self._within(spans))

    def _within(self, spans: Sequence[Span] | None, *, dates: bool = True) -> pl.Expr:
        """The condition on a request's time, and on the date by which files are found."""
        moment, date = pl.col("request_time"), pl.col("request_date")
        conditions = [pl.lit(value=True)]
        if self._since is not None:
            conditions.append(moment >= self._since)
            conditions += [date >= self._since.astimezone(UTC).date()] if dates else []
        if self._until is not None:
            conditions.append(moment < self._until)
            conditions += [date <= self._until.astimezone(UTC).date()] if dates else []
        if spans is not None:
            inside = [
                moment.is_between(first, last)
                & date.is_between(first.astimezone(UTC).date(), last.astimezone(UTC).date())
                for first, last in spans
            ]
            conditions.append(reduce(or_, inside))
        return pl.all_horizontal(conditions)

    @staticmethod
    def _changes(table: Table, since: int | None, now: int | None, columns: Sequence[str]) -> Changes:
        if now is None or since == now:
            return Changes(Sources._nothing(table).select(columns), now)
        return table.read_since(since, columns=columns, until=now)

    @staticmethod
    def _nothing(table: Table) -> pl.DataFrame:
        return pl.DataFrame(table.schema.empty_table())
