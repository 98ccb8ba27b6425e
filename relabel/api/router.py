"""HTTP API of the queue, under ``/api/relabel``.

Errors are raised as :class:`~servelens.errors.ServelensError`; the application that includes the router turns
them into problem details. Handlers are plain functions, so that they run beside the event loop, never on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from collector.catalog import Catalog
from relabel.api import exports
from relabel.case import Case, CaseState, HistoryEntry, Page
from relabel.label import Label, checked_rating
from relabel.queue.case_queue import CaseQueue
from servelens.clock import Clock, SystemClock
from servelens.database import Database

_CaseId = Annotated[int, Path(ge=1, le=2**63 - 1)]
_Since = Annotated[AwareDatetime | None, Query(description="Only records requested at this time or later.")]
_Until = Annotated[AwareDatetime | None, Query(description="Only records requested before this time.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    annotator: str = Field(description="Name of the person.")


class ClaimBody(_Body):
    """Who wants a case, and of which endpoint."""

    endpoint: str | None = None


class LabelBody(_Body):
    """A label; :class:`~relabel.case.Label` checks it, so that every way in has the same rules."""

    rating: str = Field(description="good or bad")
    corrected_answer: str | None = Field(None, description="What the model should have answered.")
    tags: list[str] = []
    comment: str | None = None
    version: int | None = Field(None, description="The version of the case that the annotator saw.")


class SkipBody(_Body):
    """Why the case is not labeled."""

    reason: str
    version: int | None = None


class HolderBody(_Body):
    """Who holds the case."""


class Counts(BaseModel):
    """Cases per state, in all and per endpoint."""

    total: dict[CaseState, int]
    endpoints: dict[str, dict[CaseState, int]]


def router(
    queue: CaseQueue, database: Database, *, clock: Clock | None = None, catalog: Catalog | None = None
) -> APIRouter:
    """The routes. Inputs that break a rule raise :class:`~servelens.errors.Invalid` naming the field."""
    routes = APIRouter(prefix="/api/relabel", tags=["relabel"])
    _add_queue_routes(routes, queue)
    _add_list_routes(routes, queue)
    whole = APIRouter()
    whole.include_router(routes)
    whole.include_router(exports.router(database, clock or SystemClock(), catalog))
    return whole


def _add_queue_routes(routes: APIRouter, queue: CaseQueue) -> None:
    @routes.post("/claim", response_model=Case, responses={204: {"description": "Nothing to do."}})
    def claim(body: ClaimBody) -> Case | Response:
        """The annotator's own claimed case, or the next open one; 204 when there is none."""
        case = queue.claim(body.annotator, body.endpoint)
        return Response(status_code=204) if case is None else case

    @routes.post("/cases/{case_id}/label")
    def label(case_id: _CaseId, body: LabelBody) -> Case:
        """Label a claimed case."""
        given = Label(checked_rating(body.rating), body.corrected_answer, tuple(body.tags), body.comment)
        return queue.submit(case_id, body.annotator, given, version=body.version)

    @routes.post("/cases/{case_id}/skip")
    def skip(case_id: _CaseId, body: SkipBody) -> Case:
        """Finish a claimed case without a label."""
        return queue.skip(case_id, body.annotator, body.reason, version=body.version)

    @routes.post("/cases/{case_id}/release")
    def release(case_id: _CaseId, body: HolderBody) -> Case:
        """Give a claimed case back."""
        return queue.release(case_id, body.annotator)

    @routes.post("/cases/{case_id}/renew")
    def renew(case_id: _CaseId, body: HolderBody) -> Case:
        """Start the lease of a claimed case anew."""
        return queue.renew(case_id, body.annotator)


def _add_list_routes(routes: APIRouter, queue: CaseQueue) -> None:
    @routes.get("/cases")
    def cases(
        state: CaseState | None = None,
        endpoint: str | None = None,
        annotator: str | None = None,
        evaluator: str | None = None,
        since: _Since = None,
        until: _Until = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Cases in the order in which they are claimed, a page at a time."""
        return queue.list(
            state=state,
            endpoint=endpoint,
            annotator=annotator,
            evaluator=evaluator,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
        )

    @routes.get("/cases/{case_id}")
    def case(case_id: _CaseId) -> Case:
        """One case, whoever holds it."""
        return queue.get(case_id)

    @routes.get("/cases/{case_id}/history")
    def history(case_id: _CaseId) -> tuple[HistoryEntry, ...]:
        """All changes of a case's state."""
        return queue.history(case_id)

    @routes.get("/counts")
    def counts(endpoint: str | None = None) -> Counts:
        """How many cases there are in each state."""
        by_endpoint: Mapping[str, Mapping[CaseState, int]] = queue.counts(endpoint)
        total = {state: sum(states[state] for states in by_endpoint.values()) for state in CaseState}
        return Counts(total=total, endpoints={name: dict(states) for name, states in by_endpoint.items()})
