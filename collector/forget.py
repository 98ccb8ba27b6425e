"""Everything that is kept of one person leaves: their records, and what hangs on them by the id of the record.

Invariant: the name of the person is written nowhere on the way, neither into a table's log nor into the database; rows
are deleted by ids.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import polars as pl

from collector.catalog import UNROUTED, EndpointTables
from collector.deletion import delete_keys
from collector.forgotten import ForgottenRecords
from collector.table import Table
from servelens.clock import Clock
from servelens.errors import Unavailable

logger = logging.getLogger(__name__)

Also = Callable[[str, Sequence[str]], Mapping[str, int]]
"""Deletes what hangs on records of an endpoint elsewhere; how many rows of what."""

Elsewhere = Callable[[str, Sequence[str]], Sequence[str]]
"""The ids of an endpoint's records of these units that something else has kept, though their table may not have them."""

REGENERATED_FOR: Final = "regenerated_for"
"""The tag of a call that asked for another answer to somebody's request: the id of that request's record."""

_ID: Final = "databricks_request_id"


class Forgetting:
    """Deletes records, their scores, embeddings, feedback and exported labels; ``also`` deletes what other parts keep of
    them, and ``elsewhere`` tells of which records these know that retention has deleted.
    """

    def __init__(
        self,
        records: ForgottenRecords,
        clock: Clock,
        also: Also,
        elsewhere: Elsewhere = lambda endpoint, units: (),
    ) -> None:
        self._records = records
        self._clock = clock
        self._also = also
        self._elsewhere = elsewhere

    def forget(
        self,
        endpoint: str,
        tables: EndpointTables,
        units: Iterable[str],
        *,
        unmatched: Table | None = None,
    ) -> Mapping[str, int]:
        """Delete what is kept of ``units`` (the spellings of one person) in ``endpoint``; rows by kind.

        Feedback that the person gave on somebody else's record leaves as well, and from ``unmatched``, where feedback lies
        whose record nobody has found yet. Raises what reading and writing the tables and the database raises; what is left
        then is deleted by the next :meth:`sweep`.
        """
        names = list(units)
        ids = sorted({*_request_ids(tables.payload, names), *self._elsewhere(endpoint, names)})
        self._records.add(endpoint, ids)
        moving = 0
        if unmatched is not None and unmatched.uri != tables.feedback.uri:
            # First, for feedback moves from there to here.
            moving = delete_keys(unmatched, "feedback_id", _given_by(unmatched, names))
            moving += delete_keys(unmatched, _ID, ids)
        given = _given_by(tables.feedback, names)
        rows = self._delete(endpoint, tables, ids)
        rows["feedback"] += delete_keys(tables.feedback, "feedback_id", given) + moving
        return rows

    def sweep(
        self, tables_of: Callable[[str], EndpointTables], *, keep: timedelta
    ) -> Mapping[str, Mapping[str, int]]:
        """Delete what was written about forgotten records since; ids are remembered for the time ``keep``. Rows by
        endpoint and kind, where there were any.
        """
        swept: dict[str, Mapping[str, int]] = {}
        unmatched = tables_of(UNROUTED).feedback
        for endpoint, ids in self._records.by_endpoint().items():
            late = delete_keys(unmatched, _ID, ids) if endpoint != UNROUTED else 0
            rows = self._delete(endpoint, tables_of(endpoint), ids)
            rows["feedback"] += late
            if any(rows.values()):
                logger.info("late rows of forgotten records deleted: endpoint=%s rows=%s", endpoint, rows)
                swept[endpoint] = rows
        self._records.drop(self._clock.now() - keep)
        return swept

    def _delete(self, endpoint: str, tables: EndpointTables, ids: Sequence[str]) -> dict[str, int]:
        rows = {
            "records": delete_keys(tables.payload, _ID, ids),
            "scores": delete_keys(tables.scores, _ID, ids),
            "feedback": delete_keys(tables.feedback, _ID, ids),
            "embeddings": delete_keys(tables.embeddings, _ID, ids),
            "exported labels": delete_keys(tables.labels, _ID, ids),
        }
        return rows | dict(self._also(endpoint, ids))


def _request_ids(payload: Table, units: Sequence[str]) -> list[str]:
    """Their records, and those that repeat what they asked, whoever called: mirrors, and answers that were asked for again;
    of those too.
    """
    found: set[str] = set()
    new = set(_ids(payload, _ID, pl.col("unit").is_in(units)))
    while new:
        found |= new
        asked = pl.col("tags").map.get(REGENERATED_FOR)
        repeats = pl.col("shadow_of").is_in(sorted(new)) | asked.is_in(sorted(new))
        new = set(_ids(payload, _ID, repeats)) - found
    return sorted(found)


def _given_by(feedback: Table, names: Sequence[str]) -> list[str]:
    return _ids(feedback, "feedback_id", (pl.col("source") == "user") & pl.col("source_id").is_in(names))


def _ids(table: Table, column: str, condition: pl.Expr) -> list[str]:
    try:
        found = table.scan().filter(condition).select(column).unique().collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the table cannot be read: {error}", field=table.uri) from error
    return found[column].drop_nulls().sort().to_list()
