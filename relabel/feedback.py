"""What users said of records: for the person who looks at a case, and of which feedback nobody knows the record.

Invariant: of what one person said of a record under one name only the last counts, here as in experiments, alerts and ground
truth; people change their mind, and apps send twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from collector.catalog import UNROUTED, EndpointTables
from collector.feedback_record import CORRECTED_ANSWER
from collector.feedback_table import PART
from collector.table import Table
from servelens.errors import Unavailable

_ID: Final = "databricks_request_id"
_SHOWN: Final = (
    *("feedback_id", _ID, "client_request_id", "feedback_time", "endpoint"),
    *("source", "source_id", "name", "value", "label", "comment"),
)
_NEWEST_FIRST: Final = ("feedback_time", "feedback_id", PART)
_IDS_AT_ONCE: Final = 5_000
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFeedback:
    """One thing that somebody said of a record: a number in ``value``, a word in ``label``, a text in ``comment`` (of
    ``corrected_answer`` the better answer). ``source_id`` is who, ``None`` for nobody in particular.
    """

    databricks_request_id: str | None
    name: str
    value: float | None
    label: str | None
    comment: str | None
    source: str | None
    source_id: str | None
    feedback_time: datetime
    feedback_id: str | None = None
    client_request_id: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Unmatched:
    """How many feedbacks have no record, and the newest of them."""

    count: int
    newest: tuple[GivenFeedback, ...]


def feedback_of(
    tables: EndpointTables, request_ids: Sequence[str], since: datetime, until: datetime
) -> Mapping[str, list[GivenFeedback]]:
    """What was said of each of these records, newest first; ids of which nothing was said are left out.

    ``since`` and ``until`` are times between which the *requests* were made (aware; both days count whole), so that few
    files are read. Raises :class:`~servelens.errors.Unavailable` when the table cannot be read.
    """
    found: dict[str, list[GivenFeedback]] = {}
    for some in _chunks(sorted(set(request_ids))):
        days = since.astimezone(UTC).date(), until.astimezone(UTC).date()
        rows = tables.feedback.scan().filter(
            pl.col("request_date").is_between(*days), pl.col(_ID).is_in(some), pl.col("name").is_not_null()
        )
        newest = (
            _collected(tables.feedback, rows.select(*_SHOWN, PART))
            .sort(_NEWEST_FIRST, descending=[True, True, False])
            .unique([_ID, "name", "source_id"], keep="first", maintain_order=True)
            .drop(PART)
        )
        for row in newest.iter_rows(named=True):
            found.setdefault(row[_ID], []).append(GivenFeedback(**row))
    return found


def suggested_answer(feedback: Sequence[GivenFeedback]) -> str | None:
    """The newest answer that a user says would have been right, of a record's feedback as :func:`feedback_of` gives it."""
    return next((each.comment for each in feedback if each.name == CORRECTED_ANSWER and each.comment), None)


def unmatched_feedback(
    tables: EndpointTables, endpoint: str, since: datetime, until: datetime, *, limit: int = 100
) -> Unmatched:
    """Feedback that arrived in [``since``, ``until``) and whose record is not in the inference table: it is of an id that
    nobody knows, of another endpoint's call, of a call that was not recorded, or faster than its record. Of
    :data:`~collector.record.UNROUTED` it is all that is there.

    Raises :class:`~servelens.errors.Unavailable` when a table cannot be read.
    """
    rows = tables.feedback.scan(since=since, until=until)
    every = _collected(tables.feedback, rows.select(_ID, "feedback_id", "feedback_time", "request_date"))
    every = every.group_by(_ID, "feedback_id", "feedback_time").agg(pl.col("request_date").first())
    if endpoint != UNROUTED and not every.is_empty():
        every = every.join(_known(tables.payload, every), on=_ID, how="anti")
    newest = every.sort("feedback_time", "feedback_id", descending=True).head(limit)
    if newest.is_empty():
        return Unmatched(0, ())
    ids = newest["feedback_id"].to_list()
    first = newest["feedback_time"].to_list()[-1]
    shown = rows.filter(pl.col("feedback_time") >= first, pl.col("feedback_id").is_in(ids))
    shown = shown.select(*_SHOWN, PART)
    said = _collected(tables.feedback, shown).join(newest.select(_ID), on=_ID, how="semi", nulls_equal=True)
    ordered = said.sort(_NEWEST_FIRST, descending=[True, True, False]).drop(PART)
    return Unmatched(every.height, tuple(GivenFeedback(**row) for row in ordered.iter_rows(named=True)))


def _known(payload: Table, feedback: pl.DataFrame) -> pl.DataFrame:
    """The ids of ``feedback`` that have a record."""
    about = feedback.select(_ID, "request_date").drop_nulls().unique(_ID).sort(_ID)
    parts = [about.select(_ID).clear()]
    for some in about.iter_slices(_IDS_AT_ONCE):
        ids, days = some[_ID].to_list(), some["request_date"].to_list()
        rows = payload.scan().filter(
            pl.col("request_date").is_between(min(days) - _DAY, max(days) + _DAY),
            pl.col(_ID).is_between(pl.lit(ids[0]), pl.lit(ids[-1])),
            pl.col(_ID).is_in(ids),
        )
        parts.append(_collected(payload, rows.select(_ID)).unique())
    return pl.concat(parts)


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _IDS_AT_ONCE):
        yield names[first : first + _IDS_AT_ONCE]


def _collected(table: Table, frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the table cannot be read: {error}", field=table.uri) from error
