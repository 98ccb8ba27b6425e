"""Truths: read from feedback, matched with their records, kept as rows of the scores table, and found there again.

Invariant: what a row of the scores table holds in ``details`` is enough to score its truth again, so a truth that waits for
its record needs no other place.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import polars as pl

from collector.catalog import EndpointTables
from evaluators.evaluator import Score
from evaluators.ground_truth.comparison import Expected, expected
from evaluators.ground_truth.options import GroundTruthOptions
from servelens.errors import Unavailable
from servelens.identifiers import time_us

TARGET: Final = "response"
WAITING: Final = "waiting_for_record"
"""The record is not in the inference table yet. A later row of the same record says what became of it."""

_ID: Final = "databricks_request_id"
_KEPT: Final = (_ID, "request_date", "request_time", "endpoint", "served_entity", "variant")
_WRITTEN: Final = (
    *_KEPT,
    *("evaluator", "evaluator_version", "model", "target"),
    *("score", "label", "unscored_reason", "details", "scored_at"),
)
_RECORD: Final = (*_KEPT, "response", "response_text")
_CHUNK: Final = 2_000
_WAITS: Final = pl.col("unscored_reason") == WAITING


@dataclass(slots=True)
class Truth:
    """What a feedback says of a record, and the record once it is found; ``expected`` ``None``: nothing comparable."""

    request_id: str
    feedback_id: str
    feedback_time: datetime
    request_time: datetime | None
    expected: Expected | None
    waiting_since: datetime | None = None
    record: Mapping[str, Any] | None = None

    @property
    def order(self) -> tuple[datetime, str]:
        """The newest of a record's truths counts; the id settles which of two of one moment."""
        return self.feedback_time, self.feedback_id


def truths_of(feedback: pl.DataFrame, options: GroundTruthOptions) -> list[Truth]:
    """The newest truth of each record in ``feedback``; rows without a request id or a time say nothing."""
    newest: dict[str, Truth] = {}
    for row in feedback.iter_rows(named=True):
        if row[_ID] is None or row["feedback_time"] is None:
            continue
        truth = Truth(
            request_id=row[_ID],
            feedback_id=row["feedback_id"] or "",
            feedback_time=row["feedback_time"],
            request_time=row["request_time"] or _time_in(row[_ID]),
            expected=expected(row["label"], row["value"], options),
        )
        known = newest.get(truth.request_id)
        if known is None or known.order < truth.order:
            newest[truth.request_id] = truth
    return list(newest.values())


class Truths:
    """The rows of ``evaluator`` in an endpoint's scores table, and the records that they are about."""

    def __init__(self, tables: EndpointTables, evaluator: str) -> None:
        self._tables = tables
        self._mine = pl.col("evaluator") == evaluator

    def waiting(self) -> dict[str, Truth]:
        """The truths whose newest row waits for its record, by request id."""
        rows = self._tables.scores.scan().filter(self._mine)
        ids = _collected(rows.filter(_WAITS).select(_ID).unique())[_ID].to_list()
        found: dict[str, Truth] = {}
        for some in _chunks(ids):
            about = rows.filter(pl.col(_ID).is_in(some)).select(
                _ID, "request_time", "scored_at", "unscored_reason", "details"
            )
            for row in _newest(_collected(about)).iter_rows(named=True):
                truth = _stored(row)
                if row["unscored_reason"] == WAITING and truth is not None:
                    found[truth.request_id] = truth
        return found

    def not_taken(self, truths: Sequence[Truth]) -> list[Truth]:
        """Those of ``truths`` that are newer than what the scores table has of their records."""
        taken: dict[str, Truth] = {}
        for some in _chunks(truths):
            days, ids = _days(some), [truth.request_id for truth in some]
            rows = self._tables.scores.scan().filter(self._mine, pl.col(_ID).is_in(ids))
            if days is not None:
                rows = rows.filter(pl.col("request_date").is_between(*days))
            about = rows.select(_ID, "request_time", "scored_at", "unscored_reason", "details")
            for row in _newest(_collected(about)).iter_rows(named=True):
                truth = _stored(row)
                if truth is not None:
                    taken[truth.request_id] = truth
        return [
            truth
            for truth in truths
            if truth.request_id not in taken or taken[truth.request_id].order < truth.order
        ]

    def find_records(self, truths: Sequence[Truth], *, everywhere: bool = False) -> None:
        """Set ``record`` of each truth whose record is in the inference table, near the day that the truth says."""
        for some in _chunks(truths):
            days, ids = None if everywhere else _days(some), [truth.request_id for truth in some]
            rows = self._tables.payload.scan().filter(
                pl.col(_ID).is_between(pl.lit(min(ids)), pl.lit(max(ids))), pl.col(_ID).is_in(ids)
            )
            if days is not None:
                rows = rows.filter(pl.col("request_date").is_between(*days))
            records = {row[_ID]: row for row in _collected(rows.select(_RECORD)).iter_rows(named=True)}
            for truth in some:
                truth.record = records.get(truth.request_id)


def score_rows(
    truths: Sequence[Truth],
    scores: Sequence[Score],
    options: GroundTruthOptions,
    *,
    now: datetime,
    endpoint: str,
) -> pl.DataFrame:
    """The scores as rows of the scores table."""
    rows: list[dict[str, Any]] = []
    for truth, score in zip(truths, scores, strict=True):
        moment = truth.request_time or truth.feedback_time
        about: Mapping[str, Any] = truth.record or {
            _ID: truth.request_id,
            "request_date": moment.date(),
            "request_time": moment,
            "endpoint": endpoint,
        }
        rows.append(
            {name: about.get(name) for name in _KEPT}
            | {
                "evaluator": options.evaluator,
                "evaluator_version": options.version,
                "model": f"feedback:{options.truth}",
                "target": TARGET,
                "score": score.value,
                "label": score.label,
                "unscored_reason": score.unscored_reason,
                "details": json.dumps(_details(truth, score), ensure_ascii=False, allow_nan=False),
                "scored_at": now,
            }
        )
    moment_type = pl.Datetime("us", "UTC")
    schema: dict[str, Any] = dict.fromkeys(_WRITTEN, pl.String) | {
        "request_date": pl.Date,
        "request_time": moment_type,
        "score": pl.Float64,
        "scored_at": moment_type,
    }
    return pl.DataFrame(rows, schema=schema)


def _details(truth: Truth, score: Score) -> dict[str, Any]:
    found: dict[str, Any] = {
        "feedback_id": truth.feedback_id,
        "feedback_time": truth.feedback_time.isoformat(),
    }
    if truth.expected is not None:
        found |= {"task": truth.expected.task, "expected": truth.expected.value}
    if truth.waiting_since is not None and truth.record is None:
        found["waiting_since"] = truth.waiting_since.isoformat()
    return found | dict(score.details)


def _stored(row: Mapping[str, Any]) -> Truth | None:
    """The truth of a row; ``None`` for one that another program has written."""
    try:
        details = json.loads(row["details"])
        since = details.get("waiting_since")
        value = details.get("expected")
        return Truth(
            request_id=row[_ID],
            feedback_id=details["feedback_id"],
            feedback_time=datetime.fromisoformat(details["feedback_time"]),
            request_time=row["request_time"],
            expected=None if value is None else Expected(details["task"], value),
            waiting_since=None if since is None else datetime.fromisoformat(since),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _newest(rows: pl.DataFrame) -> pl.DataFrame:
    # What waits is older than what came of it, also within one tick of the clock.
    return rows.sort("scored_at", ~_WAITS.fill_null(value=False)).unique(_ID, keep="last")


def _days(truths: Sequence[Truth]) -> tuple[date, date] | None:
    """The days that hold the records, a day more on either side; ``None`` when one of the times is not known."""
    times = [truth.request_time for truth in truths]
    known = [moment for moment in times if moment is not None]
    if len(known) < len(times):
        return None
    day = timedelta(days=1)
    return min(known).date() - day, max(known).date() + day


def _time_in(request_id: str) -> datetime | None:
    try:
        if uuid.UUID(request_id).version != 7:
            return None
        return datetime.fromtimestamp(time_us(request_id) / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[begin : begin + _CHUNK] for begin in range(0, len(items), _CHUNK)]


def _collected(frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"a table cannot be read: {error}") from error
