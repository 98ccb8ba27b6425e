"""HTTP API of agreement, under ``/api/relabel/agreement``: of people with each other, and of evaluators with people.

Handlers are plain functions, so that they run beside the event loop. Evaluators are measured by a callable that the
application is given, since this package knows labels only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Query

from relabel.agreement.kept import PeopleAgreements
from servelens.errors import Missing

_Endpoint = Annotated[str, Query(min_length=1, max_length=255, description="Name of the endpoint.")]
_Evaluator = Annotated[str, Query(min_length=1, max_length=255, description="Name of the evaluator.")]
_Positive = Annotated[
    str | None,
    Query(max_length=400, description="People's yes: FIELD=VALUE of the label schema, as rating=bad."),
]


class MeasureEvaluator(Protocol):
    """Measures an evaluator against people; the answer is plain data."""

    def __call__(
        self,
        endpoint: str,
        evaluator: str,
        *,
        target: Literal["request", "response"] = "response",
        positive: str | None = None,
        above: float | None = None,
        below: float | None = None,
        precision: float | None = None,
    ) -> Mapping[str, Any]:
        """Raises :class:`~servelens.errors.Invalid` for an option that makes no sense, :class:`~servelens.errors.Missing`
        without a label, :class:`~servelens.errors.Unavailable` when something cannot be read."""
        ...


def router(people: PeopleAgreements, measure: MeasureEvaluator | None = None) -> APIRouter:
    """The routes; without ``measure`` there is nothing about evaluators."""
    routes = APIRouter(prefix="/api/relabel/agreement", tags=["relabel"])

    @routes.get("")
    def agreement(endpoint: _Endpoint) -> dict[str, Any]:
        """How far people agree: per field, per pair, per person."""
        return people.report(endpoint).to_dict()

    @routes.get("/evaluators")
    def evaluators(
        endpoint: _Endpoint,
        evaluator: _Evaluator,
        target: Literal["request", "response"] = "response",
        positive: _Positive = None,
        above: float | None = None,
        below: float | None = None,
        precision: float | None = None,
    ) -> Mapping[str, Any]:
        """How well an evaluator agrees with people, on all labels and on the random control sample."""
        if measure is None:
            raise Missing("this console knows no evaluators", field="evaluator")
        return measure(
            endpoint,
            evaluator,
            target=target,
            positive=positive,
            above=above,
            below=below,
            precision=precision,
        )

    return routes
