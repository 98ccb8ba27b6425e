"""Records that a rule applies to before they are in the inference table: feedback may overtake the record.

They are looked for among the rows that later commits add, so waiting costs nothing while nothing is added. Who has not come
after :data:`WAIT` counts as gone, and so does who is older than that when the rule finds it: retention has deleted it.

Invariant: a match is either stored, counted or here, in one transaction each time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from collector.table import Table
from relabel.models import PendingRow
from relabel.selection.rule import CaseRule
from relabel.selection.sources.newest_scores import span
from relabel.selection.sources.source import ID, MATCH_SCHEMA, collected
from servelens.errors import Missing

logger = logging.getLogger(__name__)

WAIT: Final = timedelta(hours=24)
MOST: Final = 10_000
"""Of an endpoint; more count as gone at once."""

_KEPT: Final = ("evaluator", "evaluator_version", "target", "label", "detail")
_NUMBERS: Final = ("extreme", "score", "sampled")


def keep_pending(
    session: Session,
    endpoint: str,
    rules: Sequence[CaseRule],
    rows: Iterable[Mapping[str, Any]],
    payload_version: int | None,
    now: datetime,
) -> list[Mapping[str, Any]]:
    """Keep the matches ``rows``; those that it is too late to wait for are given back."""
    rows = list(rows)
    ids = {row[ID] for row in rows}
    there = {
        (row.databricks_request_id, row.rule)
        for row in session.execute(
            select(PendingRow.databricks_request_id, PendingRow.rule).where(
                PendingRow.endpoint == endpoint, PendingRow.databricks_request_id.in_(ids)
            )
        )
    }
    of_endpoint = select(func.count()).select_from(PendingRow).where(PendingRow.endpoint == endpoint)
    room = MOST - (session.scalar(of_endpoint) or 0)
    late: list[Mapping[str, Any]] = []
    new: list[dict[str, Any]] = []
    for row in rows:
        key = (row[ID], rules[row["rule"]].name)
        if key in there:
            continue
        if row["request_time"] < now - WAIT or len(new) >= room:
            late.append(row)
            continue
        there.add(key)
        # A number that JSON has no word for is text.
        numbers = {name: None if row[name] is None else repr(row[name]) for name in _NUMBERS}
        new.append(
            {
                "endpoint": endpoint,
                "databricks_request_id": key[0],
                "rule": key[1],
                "request_time": row["request_time"],
                "payload_version": payload_version,
                "give_up_at": now + WAIT,
                "match": {**{name: row[name] for name in _KEPT}, **numbers},
            }
        )
    if new:
        session.execute(insert(PendingRow), new)
        logger.info("records are waited for: endpoint=%s records=%d", endpoint, len(new))
    return late


def read_pending(session: Session, endpoint: str) -> list[PendingRow]:
    """The matches that wait, the oldest first."""
    rows = select(PendingRow).where(PendingRow.endpoint == endpoint)
    return list(session.scalars(rows.order_by(PendingRow.give_up_at, PendingRow.databricks_request_id)))


def arrived(payload: Table, waiting: Sequence[PendingRow]) -> tuple[set[str], int | None]:
    """Which of the records are in the table by now, and the version as of which. Raises
    :class:`~servelens.errors.Unavailable`.
    """
    newest = payload.version()
    versions = [row.payload_version for row in waiting]
    since = (
        None if any(version is None for version in versions) else min(v for v in versions if v is not None)
    )
    if newest is None or newest == since:
        return set(), newest
    ids = {row.databricks_request_id for row in waiting}
    try:
        added = payload.read_since(since, columns=[ID], until=newest).frame
    except Missing:  # maintenance has ended the history, or the table was made anew
        times = pl.DataFrame({"request_time": [row.request_time for row in waiting]})
        first, last = span(times)
        added = collected(payload.scan(since=first, until=last).filter(pl.col(ID).is_in(ids)).select(ID))
    return ids & set(added[ID].to_list()), newest


def as_matches(waiting: Sequence[PendingRow], rules: Sequence[CaseRule]) -> pl.DataFrame:
    """The matches as their source found them, of rules that there still are."""
    numbers = {rule.name: number for number, rule in enumerate(rules)}
    rows = [
        {
            ID: row.databricks_request_id,
            "request_time": row.request_time,
            "rule": numbers[row.rule],
            **{name: row.match.get(name) for name in _KEPT},
            **{name: None if row.match.get(name) is None else float(row.match[name]) for name in _NUMBERS},
        }
        for row in waiting
        if row.rule in numbers
    ]
    return pl.DataFrame(rows, schema=MATCH_SCHEMA)


def forget_pending(session: Session, endpoint: str, request_ids: Iterable[str]) -> None:
    """They are stored, or counted as gone."""
    session.execute(
        delete(PendingRow).where(
            PendingRow.endpoint == endpoint, PendingRow.databricks_request_id.in_(list(request_ids))
        )
    )


def looked_until(session: Session, endpoint: str, request_ids: Iterable[str], version: int | None) -> None:
    """Those that wait were looked for, and are not in the table at ``version``; others may have come to wait meanwhile."""
    session.execute(
        update(PendingRow)
        .where(PendingRow.endpoint == endpoint, PendingRow.databricks_request_id.in_(list(request_ids)))
        .values(payload_version=version),
        execution_options={"synchronize_session": False},
    )
