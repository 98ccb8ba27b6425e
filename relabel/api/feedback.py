"""HTTP API of users' feedback, under ``/api/relabel/feedback``: what was said of a record, and what is unmatched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel

from collector.catalog import UNROUTED, Catalog
from relabel.feedback import GivenFeedback, feedback_of, unmatched_feedback
from servelens.clock import Clock
from servelens.errors import Invalid
from servelens.identifiers import time_us

_WINDOW: Final = timedelta(days=7)
_Since = Annotated[
    AwareDatetime | None, Query(description="Arrived at this time or later. Default: a week ago.")
]
_Until = Annotated[AwareDatetime | None, Query(description="Arrived before this time. Default: now.")]


class UnmatchedFeedback(BaseModel):
    """Feedback without a record: how much of it there is by endpoint, and the newest.

    ``without_endpoint`` counts what names no endpoint, or its call by the caller's own id: the scheduler still looks for
    the record, or has given up.
    """

    endpoints: dict[str, int]
    without_endpoint: int
    newest: list[GivenFeedback]


def router(catalog: Catalog, clock: Clock) -> APIRouter:
    """The routes. They raise :class:`~servelens.errors.Missing` for an endpoint that is not there."""
    routes = APIRouter(prefix="/api/relabel/feedback", tags=["relabel"])

    @routes.get("/unmatched")
    def unmatched(
        endpoint: str | None = None,
        since: _Since = None,
        until: _Until = None,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    ) -> UnmatchedFeedback:
        """Feedback whose record is not known, of one endpoint or of all."""
        end = until or clock.now()
        end = _utc(end, "until")
        begin = _utc(end, "until", -_WINDOW) if since is None else _utc(since, "since")
        if begin >= end:
            raise Invalid("it is not before until", field="since", fix="Give an earlier time.")
        catalog.refresh()
        names = catalog.endpoints if endpoint is None else (endpoint,)
        counts: dict[str, int] = {}
        newest: list[GivenFeedback] = []
        for name in names:
            found = unmatched_feedback(catalog.tables(name), name, begin, end, limit=limit)
            counts[name] = found.count
            newest += found.newest
        nowhere = unmatched_feedback(catalog.tables(UNROUTED), UNROUTED, begin, end, limit=limit)
        newest = sorted((*newest, *nowhere.newest), key=lambda each: each.feedback_time, reverse=True)
        return UnmatchedFeedback(endpoints=counts, without_endpoint=nowhere.count, newest=newest[:limit])

    @routes.get("/{endpoint}/{request_id}")
    def said(endpoint: str, request_id: Annotated[str, Path(max_length=64)]) -> list[GivenFeedback]:
        """What was said of one record, newest first; the last word of each person under each name."""
        try:
            moment = datetime.fromtimestamp(time_us(request_id) / 1e6, UTC)
        except ValueError as error:
            raise Invalid(
                "it is no id of a record", field="request_id", fix="Give a databricks_request_id."
            ) from error
        found = feedback_of(catalog.tables(endpoint), [request_id], moment, moment)
        return found.get(request_id, [])

    return routes


def _utc(moment: datetime, field: str, later: timedelta = timedelta(0)) -> datetime:
    try:
        return moment.astimezone(UTC) + later
    except OverflowError as error:
        raise Invalid(
            "it is outside of the calendar", field=field, fix="Give a time nearer to now."
        ) from error
