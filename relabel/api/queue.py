"""HTTP API of the queue: claim, answer, hand on, look.

Errors are raised as :class:`~servelens.errors.ServelensError`; the application that includes the router turns
them into problem details. Handlers are plain functions, so that they run beside the event loop, never on it. Whole cases
are written as JSON by one prepared serializer, since a check of what the queue has just made would only cost time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

from relabel.case import Case, CaseState, HistoryEntry, Page, ReasonKind
from relabel.queue.answers import SHORT
from relabel.queue.case_queue import CaseQueue

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
    """A label: answers by the name of the schema's field in ``values``, or by what they are, as ``rating`` and the like.
    The schema checks both, so that every way in has the same rules.
    """

    values: dict[str, Any] = {}
    rating: Any = Field(None, description="The answer to the schema's field of this type.")
    corrected_answer: str | None = Field(None, description="What the model should have answered.")
    tags: list[str] = []
    preferred: str | None = Field(
        None, description="The id of the best answer: answer, tie, or an alternative."
    )
    comment: str | None = None
    version: int | None = Field(None, description="The version of the case that the annotator claimed.")


class SkipBody(_Body):
    """Why the case is not labeled."""

    reason: str
    version: int | None = None


class HolderBody(_Body):
    """Who holds the case, or has answered it."""


class ReassignBody(_Body):
    """Who gives whose place to whom."""

    from_annotator: str
    to_annotator: str


class CommentBody(_Body):
    """A remark on the case."""

    text: str


class ReopenBody(_Body):
    """Why the labels are not to stand."""

    reason: str


class GoldBody(_Body):
    """The known answer by the name of the schema's field; null: the case is gold no longer."""

    values: dict[str, Any] | None


class Counts(BaseModel):
    """Cases per state, in all and per endpoint."""

    total: dict[CaseState, int]
    endpoints: dict[str, dict[CaseState, int]]


@dataclass(frozen=True, slots=True)
class Answered:
    """The case that was answered and the next one, which is claimed; null when there is nothing more to do."""

    case: Case
    next: Case | None


_CASE: Final = TypeAdapter(Case)
_ANSWERED: Final = TypeAdapter(Answered)
_Next = Annotated[
    str | None, Query(alias="next_endpoint", description="With next: claim from this endpoint only.")
]


def router(queue: CaseQueue) -> APIRouter:
    """The routes, without a prefix. Inputs that break a rule raise :class:`~servelens.errors.Invalid` naming the field."""
    routes = APIRouter()
    _add_claim_routes(routes, queue)
    _add_answer_routes(routes, queue)
    _add_overseer_routes(routes, queue)
    _add_list_routes(routes, queue)
    return routes


def _add_claim_routes(routes: APIRouter, queue: CaseQueue) -> None:
    nothing: dict[int | str, dict[str, Any]] = {204: {"description": "Nothing to do."}}

    @routes.post("/claim", response_model=Case, responses=nothing)
    def claim(body: ClaimBody) -> Response:
        """The annotator's own claimed case, or the next one; 204 when there is none."""
        return _written(queue.claim(body.annotator, body.endpoint))

    @routes.post("/disputes/claim", response_model=Case, responses=nothing)
    def claim_dispute(body: ClaimBody) -> Response:
        """A case whose labels disagree, with all of them, to decide it; 204 when there is none."""
        return _written(queue.claim_dispute(body.annotator, body.endpoint))

    @routes.post("/cases/{case_id}/release", response_model=Case)
    def release(case_id: _CaseId, body: HolderBody) -> Response:
        """Give a claimed case back."""
        return _written(queue.release(case_id, body.annotator))

    @routes.post("/cases/{case_id}/renew", response_model=Case)
    def renew(case_id: _CaseId, body: HolderBody) -> Response:
        """Start the lease of a claimed case anew."""
        return _written(queue.renew(case_id, body.annotator))


def _add_answer_routes(routes: APIRouter, queue: CaseQueue) -> None:
    @routes.post("/cases/{case_id}/label", response_model=Case | Answered)
    def label(
        case_id: _CaseId,
        body: LabelBody,
        following: Annotated[
            bool, Query(alias="next", description="Claim the next case in the same call.")
        ] = False,
        next_endpoint: _Next = None,
    ) -> Response:
        """Label a claimed case; with ``next`` the answer holds this case and the next."""
        short = {word: getattr(body, word) for word in SHORT}
        case = queue.answer(
            case_id, body.annotator, body.values, body.comment, version=body.version, short=short
        )
        return _with_next(queue, case, body.annotator, following, next_endpoint)

    @routes.post("/cases/{case_id}/skip", response_model=Case | Answered)
    def skip(
        case_id: _CaseId,
        body: SkipBody,
        following: Annotated[
            bool, Query(alias="next", description="Claim the next case in the same call.")
        ] = False,
        next_endpoint: _Next = None,
    ) -> Response:
        """Finish a claimed case without a label of the annotator's."""
        case = queue.skip(case_id, body.annotator, body.reason, version=body.version)
        return _with_next(queue, case, body.annotator, following, next_endpoint)

    @routes.post("/cases/{case_id}/withdraw", response_model=Case)
    def withdraw(case_id: _CaseId, body: HolderBody) -> Response:
        """Take the own label or skip back; the case is claimed again."""
        return _written(queue.withdraw(case_id, body.annotator))

    @routes.post("/cases/{case_id}/comments", response_model=Case)
    def comment(case_id: _CaseId, body: CommentBody) -> Response:
        """Add a remark that everybody sees."""
        return _written(queue.comment(case_id, body.annotator, body.text))


def _add_overseer_routes(routes: APIRouter, queue: CaseQueue) -> None:
    @routes.post("/cases/{case_id}/reassign", response_model=Case)
    def reassign(case_id: _CaseId, body: ReassignBody) -> Response:
        """Give a place that somebody holds to somebody else."""
        return _written(queue.reassign(case_id, body.from_annotator, body.to_annotator, actor=body.annotator))

    @routes.post("/cases/{case_id}/reopen", response_model=Case)
    def reopen(case_id: _CaseId, body: ReopenBody) -> Response:
        """Take the labels of a finished or disputed case away; it is open again."""
        return _written(queue.reopen(case_id, body.annotator, body.reason))

    @routes.post("/cases/{case_id}/gold", response_model=Case)
    def gold(case_id: _CaseId, body: GoldBody) -> Response:
        """Give the case a known answer, to measure annotators by, or take it away."""
        return _written(queue.set_gold(case_id, body.values, actor=body.annotator))


def _add_list_routes(routes: APIRouter, queue: CaseQueue) -> None:
    @routes.get("/cases")
    def cases(
        state: CaseState | None = None,
        endpoint: str | None = None,
        annotator: str | None = None,
        evaluator: str | None = None,
        rule: str | None = None,
        kind: ReasonKind | None = None,
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
            rule=rule,
            kind=kind,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
        )

    @routes.get("/cases/{case_id}", response_model=Case)
    def case(case_id: _CaseId, annotator: str | None = None) -> Response:
        """One case, whoever holds it, as the annotator may see it."""
        return _written(queue.get(case_id, annotator))

    @routes.get("/cases/{case_id}/history")
    def history(case_id: _CaseId, annotator: str | None = None) -> tuple[HistoryEntry, ...]:
        """All that happened to a case; to an annotator, of an unfinished one, without what others said."""
        return queue.history(case_id, annotator)

    @routes.get("/counts")
    def counts(endpoint: str | None = None) -> Counts:
        """How many cases there are in each state."""
        by_endpoint: Mapping[str, Mapping[CaseState, int]] = queue.counts(endpoint)
        total = {state: sum(states[state] for states in by_endpoint.values()) for state in CaseState}
        return Counts(total=total, endpoints={name: dict(states) for name, states in by_endpoint.items()})


def _with_next(
    queue: CaseQueue, case: Case, annotator: str, following: bool, endpoint: str | None
) -> Response:
    if not following:
        return _written(case)
    answered = Answered(case, queue.claim(annotator, endpoint))
    return Response(_ANSWERED.dump_json(answered), media_type="application/json")


def _written(case: Case | None) -> Response:
    if case is None:
        return Response(status_code=204)
    return Response(_CASE.dump_json(case), media_type="application/json")
