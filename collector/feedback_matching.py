"""Feedback whose endpoint nobody could tell moves to the feedback table of its record's endpoint.

The proxy knows neither records nor tables. What names no endpoint where there are several, or knows its request by the
caller's own id only, is kept in the feedback table of :data:`~collector.record.UNROUTED`; here its record is looked for in
the inference tables, and the feedback moves. What stays there has no record: that table is the list of what is unmatched.

Invariant: a feedback is in one of the two tables at any moment, in both for an instant, and in the end in one. It is
appended first, in a commit that carries a count of these commits as an application transaction, and deleted then; a run that
was killed in between finds it in both and only deletes. The rows keep their worker and offset, so the books of
:mod:`collector.audit` stay right. What somebody deletes meanwhile (a person who is forgotten) does not come back by the move.

A record is looked for when its feedback arrives, and then whenever the feedback is twice as old, until ``wait`` is over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from threading import Event
from typing import Final

import polars as pl

from collector.catalog import UNROUTED, Catalog
from collector.deletion import Also, delete_keys
from collector.feedback_table import PART
from collector.table import Table
from servelens.clock import Clock
from servelens.errors import Conflict, ServelensError, Unavailable
from servelens.identifiers import time_us

logger = logging.getLogger(__name__)

APPLICATION_ID: Final = "feedback-matching"
"""Under which a feedback table counts the commits of this module."""

_ID, _CLIENT_ID, _TIME = "databricks_request_id", "client_request_id", "request_time"
_ORIGIN: Final = ("worker_id", "spool_offset")
_FOUND: Final = (_ID, "request_date", _TIME, "endpoint")
_IDS_AT_ONCE: Final = 2_000
_MOVED_AT_ONCE: Final = 1_000
_LOOK_BACK: Final = (timedelta(hours=1), timedelta(days=1), timedelta(days=7))
"""How far back the first look, the second and all others search for a ``client_request_id``, which tells no time."""
_SKEW: Final = timedelta(minutes=1)
_LONGEST_PAUSE: Final = timedelta(hours=6)

_DAY: Final = timedelta(days=1)
_NOTHING_FOUND: Final = (
    pl.lit(None, pl.String).alias(_ID),
    pl.lit(None, pl.Date).alias("request_date"),
    pl.lit(None, pl.Datetime("us", "UTC")).alias(_TIME),
    pl.lit(None, pl.String).alias("endpoint"),
)

_Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class MatchingSummary:
    """What one run did: how many feedbacks were ``moved``, wait for their record, and were given up; the last by the
    endpoint that the sender named, ``""`` for none.
    """

    moved: int
    waiting: int
    unmatched: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Looks:
    due: datetime
    count: int = 0


class FeedbackMatching:
    """Looks through the unmatched feedback of ``catalog``. Not to be run twice at once; whoever does gets a Conflict."""

    def __init__(self, catalog: Catalog, clock: Clock, *, wait: timedelta) -> None:
        self._catalog = catalog
        self._clock = clock
        self._wait = wait
        self._looks: dict[_Key, _Looks] = {}
        self.moved = 0
        """Feedbacks that have been moved since the start."""
        self.last: MatchingSummary | None = None
        """What the last whole run did."""

    def run(self, stop: Event | None = None) -> MatchingSummary:
        """Look for the records that are due; with ``stop`` set it ends after the commit in hand.

        Raises :class:`~servelens.errors.Unavailable` at the end when a table could not be read (the others were looked
        at), and what reading the unmatched feedback raises.
        """
        now = self._clock.now()
        unmatched = self._catalog.tables(UNROUTED).feedback
        waiting = self._waiting(unmatched, now)
        due = waiting.filter(waiting["due"] <= now)
        problems: list[str] = []
        moved = 0
        if not due.is_empty():
            self._catalog.refresh()
            for (endpoint,), found in self._find(due, problems).group_by("endpoint"):
                for some in found.iter_slices(_MOVED_AT_ONCE):
                    if stop is not None and stop.is_set():
                        break
                    try:
                        moved += self._move(unmatched, str(endpoint), some)
                    except (Unavailable, Conflict) as error:
                        problems.append(str(error))
                        break
            if not problems:
                self._looked(due, now)
        self.moved += moved
        summary = MatchingSummary(moved, waiting.height - moved, _given_up(unmatched, now - self._wait))
        if problems:
            raise Unavailable(f"not all feedback could be matched: {problems[0]}")
        self.last = summary
        return summary

    def _waiting(self, unmatched: Table, now: datetime) -> pl.DataFrame:
        """The first row of each feedback that may still find its record, when it is due, and how often it was looked for."""
        rows = unmatched.scan(since=now - self._wait).filter(
            pl.col("worker_id").is_not_null(), pl.col(PART) == 0
        )
        found = _collected(
            unmatched, rows.select(*_ORIGIN, "feedback_id", _ID, _CLIENT_ID, "endpoint", "feedback_time")
        )
        looks = {key: self._looks.get(key) or _Looks(now) for key in found.select(_ORIGIN).iter_rows()}
        self._looks = looks
        return found.with_columns(
            pl.Series("due", [each.due for each in looks.values()], pl.Datetime("us", "UTC")),
            pl.Series("looks", [each.count for each in looks.values()], pl.Int64),
        )

    def _looked(self, rows: pl.DataFrame, now: datetime) -> None:
        for *key, arrived in rows.select(*_ORIGIN, "feedback_time").iter_rows():
            looks = self._looks[key[0], key[1]]
            looks.count += 1
            looks.due = now + min(max(now - arrived, timedelta()), _LONGEST_PAUSE)

    def _find(self, due: pl.DataFrame, problems: list[str]) -> pl.DataFrame:
        """The records of feedback, each with the worker and offset of the feedback, in the order of their time."""
        endpoints = self._catalog.endpoints
        anywhere = pl.col("endpoint").is_null() | ~pl.col("endpoint").is_in(endpoints)
        by_id = due.filter(pl.col(_ID).is_not_null())
        by_client = due.filter(pl.col(_ID).is_null() & pl.col(_CLIENT_ID).is_not_null())
        parts = [due.clear().select(*_ORIGIN, "feedback_id").with_columns(_NOTHING_FOUND)]
        unread = False
        for endpoint in endpoints:
            mine = anywhere | (pl.col("endpoint") == endpoint)
            payload = self._catalog.tables(endpoint).payload
            try:
                found = [
                    *_by_id(payload, by_id.filter(mine)),
                    *_by_client_id(payload, by_client.filter(mine)),
                ]
            except ServelensError as error:
                problems.append(str(error))
                unread = True
            else:
                parts += [
                    each.with_columns(endpoint=pl.lit(endpoint)).select(parts[0].columns) for each in found
                ]
        every = pl.concat(parts)
        if unread:  # it may have a newer record of the same client_request_id
            every = every.join(by_id, on=_ORIGIN, how="semi")
        # Of several calls with one client_request_id, which are retries, the last before the feedback is meant.
        return every.sort(_TIME, _ID).unique(_ORIGIN, keep="last", maintain_order=True)

    def _move(self, unmatched: Table, endpoint: str, found: pl.DataFrame) -> int:
        """Move the feedback of records that were ``found`` to the table of ``endpoint``; how many feedbacks."""
        target = self._catalog.tables(endpoint).feedback
        committed = target.transaction_version(APPLICATION_ID)
        about = found.select(*_ORIGIN, *_FOUND)
        ids = found["feedback_id"].unique().to_list()
        rows = _with_origin(unmatched, ids).join(about.select(_ORIGIN), on=_ORIGIN, how="semi")
        moving = rows.drop(_FOUND).join(about, on=_ORIGIN).select(unmatched.schema.names)
        there = _with_origin(target, ids, about["request_date"].unique().to_list())
        missing = moving.join(there.select(*_ORIGIN, PART), on=[*_ORIGIN, PART], how="anti")
        if missing.height:
            target.append(
                missing,
                transactions={APPLICATION_ID: 1 if committed is None else committed + 1},
                after={APPLICATION_ID: committed},
            )
        still = _with_origin(unmatched, ids).select(_ORIGIN).unique()
        gone = missing.join(still, on=_ORIGIN, how="anti")
        for worker, offsets, keys in _by_worker(gone):  # deleted while it moved
            delete_keys(target, "feedback_id", keys, _of_worker(worker, offsets), has_left=False)
        for worker, offsets, keys in _by_worker(moving):
            delete_keys(unmatched, "feedback_id", keys, _of_worker(worker, offsets), has_left=False)
        return moving.select(_ORIGIN).n_unique() - gone.select(_ORIGIN).n_unique()


def _by_id(payload: Table, wanted: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The records whose id is known: it says when they were made, so few files are read."""
    for some in wanted.sort(_ID).iter_slices(_IDS_AT_ONCE):
        ids = some[_ID].unique().to_list()
        first, last = (datetime.fromtimestamp(time_us(end(ids)) / 1e6, UTC).date() for end in (min, max))
        rows = payload.scan().filter(
            pl.col("request_date").is_between(first - _DAY, last + _DAY),
            pl.col(_ID).is_between(pl.lit(min(ids)), pl.lit(max(ids))),
            pl.col(_ID).is_in(ids),
        )
        records = _collected(payload, rows.select(_ID, "request_date", _TIME)).unique(_ID)
        yield some.select(*_ORIGIN, "feedback_id", _ID).join(records, on=_ID)


def _by_client_id(payload: Table, wanted: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The records with the ids that callers gave, from before the feedback."""
    for look, look_back in enumerate(_LOOK_BACK):
        is_last = look == len(_LOOK_BACK) - 1
        for some in wanted.filter(
            pl.col("looks") >= look if is_last else pl.col("looks") == look
        ).iter_slices(_IDS_AT_ONCE):
            arrived = some["feedback_time"].to_list()
            rows = payload.scan(since=min(arrived) - look_back, until=max(arrived) + _SKEW).filter(
                pl.col(_CLIENT_ID).is_in(some[_CLIENT_ID].unique().to_list()),
                ~pl.col("is_shadow").fill_null(value=False),  # a mirror has the caller's id as well
            )
            records = _collected(payload, rows.select(_ID, "request_date", _TIME, _CLIENT_ID))
            given = some.select(*_ORIGIN, "feedback_id", _CLIENT_ID, "feedback_time")
            age = pl.col("feedback_time") - pl.col(_TIME)
            yield given.join(records, on=_CLIENT_ID).filter(age.is_between(-_SKEW, look_back))


def _with_origin(
    table: Table, feedback_ids: Sequence[str], days: Sequence[date] | None = None
) -> pl.DataFrame:
    """The rows of these feedbacks, on ``days`` (of the request) if they are known."""
    rows = table.scan().filter(pl.col("feedback_id").is_in(list(feedback_ids)))
    if days is not None:
        rows = rows.filter(pl.col("request_date").is_between(min(days), max(days)))
    return _collected(table, rows).filter(pl.col("worker_id").is_not_null())


def _by_worker(rows: pl.DataFrame) -> Iterator[tuple[str, list[int], list[str]]]:
    """The offsets and feedback ids of each worker."""
    for (worker,), some in rows.group_by("worker_id"):
        yield (
            str(worker),
            some["spool_offset"].unique().sort().to_list(),
            some["feedback_id"].unique().to_list(),
        )


def _of_worker(worker: str, offsets: Sequence[int]) -> Also:
    """Those rows and no others: another feedback may have the same id, which its sender chose."""
    name = worker.replace("'", "''")
    listed = ", ".join(map(str, offsets))
    return Also(
        f"worker_id = '{name}' AND spool_offset IN ({listed})",
        (pl.col("worker_id") == worker) & pl.col("spool_offset").is_in(list(offsets)),
    )


def _given_up(unmatched: Table, before: datetime) -> dict[str, int]:
    rows = unmatched.scan(until=before).filter((pl.col(PART) == 0).fill_null(value=True))
    counts = _collected(unmatched, rows.group_by("endpoint").len())
    return {name or "": count for name, count in counts.sort("endpoint").iter_rows()}


def _collected(table: Table, frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the table cannot be read: {error}", field=table.uri) from error
