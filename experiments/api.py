"""HTTP: the experiments, where they stand, their reports and decisions; and what starts, changes and ends them.

Errors are :class:`~servelens.errors.ServelensError`; the application that includes the router turns them into
RFC 9457 problem details. Who has changed something is the name of the API key (``request.state.requester``), or
:data:`~servelens.api_caller.NOBODY` while there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict

from experiments.analysis.analyzer import Analyzer
from experiments.experiment import Experiment
from experiments.lifecycle import Lifecycle
from experiments.standing import Standing
from experiments.store import ExperimentStore
from servelens.api_caller import Caller, Revision
from servelens.errors import Invalid


@dataclass(frozen=True, slots=True)
class ExperimentControl:
    """What changes experiments. ``parse`` makes one of a body in the shape of the settings file's block;
    ``promote`` and ``abort`` are called with name, who asks for it, and the reason; ``decisions`` gives those
    about an experiment, the newest first, as JSON-able values, so many at the most.
    """

    lifecycle: Lifecycle
    parse: Callable[[Mapping[str, Any]], Experiment]
    promote: Callable[[str, str, str], object]
    abort: Callable[[str, str, str], object]
    decisions: Callable[[str, int], Sequence[Mapping[str, Any]]]


class ChangeBody(BaseModel):
    """Another share of the units, other weights in percent by variant, or both."""

    model_config = ConfigDict(extra="forbid")

    share: float | None = None
    weights: dict[str, float] | None = None


class ReasonBody(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = None


_Reason = Annotated[ReasonBody, Body(default_factory=ReasonBody)]
_Limit = Annotated[int, Query(ge=1, le=1000)]


def router(
    store: ExperimentStore, analyzer_for: Callable[[Experiment], Analyzer], control: ExperimentControl
) -> APIRouter:
    """Routes under ``/api/experiments``. Handlers block on database and tables, so they run in worker
    threads.
    """
    routes = APIRouter(prefix="/api/experiments", tags=["experiments"])
    lifecycle = control.lifecycle

    @routes.get("")
    def list_experiments() -> dict[str, Any]:
        """All experiments, the newest first, each with its newest verdict."""
        return {"experiments": [_summary(store, standing) for standing in lifecycle.standings()]}

    @routes.post("", status_code=201)
    def create(body: Annotated[dict[str, Any], Body()], by: Caller) -> dict[str, Any]:
        """Start an experiment: a block as in the settings file. With ``start: false`` it is a draft."""
        definition = dict(body)
        start = definition.pop("start", True)
        if not isinstance(start, bool):
            raise Invalid("is neither true nor false.", field="start", fix="Use false for a draft.")
        return lifecycle.create(control.parse(definition), by=by, start=start).to_dict()

    @routes.get("/{name}")
    def get_experiment(name: str) -> dict[str, Any]:
        """The definition, where it stands, and the newest report (null before the first analysis)."""
        return {**lifecycle.standing(name).to_dict(), "report": store.latest(name)}

    @routes.patch("/{name}")
    def change(name: str, body: ChangeBody, by: Caller, expected: Revision) -> dict[str, Any]:
        """Change the share, or begin a phase with other weights; what is left out stays."""
        if body.weights is not None:
            _refuse_weights(lifecycle.standing(name))
            lifecycle.begin_phase(name, body.weights, share=body.share, by=by, expected_revision=expected)
        elif body.share is not None:
            lifecycle.change_share(name, body.share, by, expected)
        else:
            raise Invalid("is missing.", field="share", fix="Give share, weights or both.")
        return lifecycle.standing(name).to_dict()

    @routes.post("/{name}/start")
    def start(name: str, by: Caller, expected: Revision) -> dict[str, Any]:
        """A draft begins to assign."""
        return lifecycle.start(name, by, expected).to_dict()

    @routes.post("/{name}/pause")
    def pause(name: str, by: Caller, expected: Revision) -> dict[str, Any]:
        """Hold the decisions of a rollout or a bandit. The traffic stays as it is."""
        return lifecycle.pause(name, by, expected).to_dict()

    @routes.post("/{name}/resume")
    def resume(name: str, by: Caller, expected: Revision) -> dict[str, Any]:
        """Go on after a pause."""
        return lifecycle.resume(name, by, expected).to_dict()

    @routes.post("/{name}/stop")
    def stop(name: str, body: _Reason, by: Caller, expected: Revision) -> dict[str, Any]:
        """End it for good; all traffic follows the routes."""
        return lifecycle.stop(name, by, "stopped", body.reason, expected).to_dict()

    @routes.post("/{name}/promote")
    def promote(name: str, body: _Reason, by: Caller) -> dict[str, Any]:
        """End it for its treatment, which gets the control's route."""
        lifecycle.standing(name)
        control.promote(name, by, _given(body.reason))
        return lifecycle.standing(name).to_dict()

    @routes.post("/{name}/abort")
    def abort(name: str, body: _Reason, by: Caller) -> dict[str, Any]:
        """End it for its control."""
        lifecycle.standing(name)
        control.abort(name, by, _given(body.reason))
        return lifecycle.standing(name).to_dict()

    @routes.get("/{name}/decisions")
    def get_decisions(name: str, limit: _Limit = 100) -> dict[str, Any]:
        """What was decided about it, by whom and why, the newest first."""
        lifecycle.standing(name)
        return {"experiment": name, "decisions": list(control.decisions(name, limit))}

    @routes.get("/{name}/history")
    def get_history(name: str, limit: _Limit = 100) -> dict[str, Any]:
        """The reports that are kept, the newest first: all of the last minutes, and fewer of earlier ones."""
        lifecycle.standing(name)
        return {"experiment": name, "reports": store.history(name, limit=limit)}

    @routes.post("/{name}/analysis")
    def analyze(name: str) -> dict[str, Any]:
        """Look now; looking costs no error probability."""
        return analyzer_for(lifecycle.standing(name).experiment).analyze(name).to_dict()

    return routes


def _refuse_weights(standing: Standing) -> None:
    experiment = standing.experiment
    if experiment.kind != "ab":
        why = "has no weights" if experiment.kind == "shadow" else "sets its weights itself"
        raise Invalid(
            f"experiment '{experiment.name}' is a {experiment.kind}, which {why}.",
            field="weights",
            fix="Leave them out, or use kind: ab.",
        )


def _given(reason: str | None) -> str:
    if reason is None or not reason.strip():
        raise Invalid("is missing.", field="reason", fix="Say why; it is kept with the decision.")
    return reason.strip()


def _summary(store: ExperimentStore, standing: Standing) -> dict[str, Any]:
    latest = store.latest(standing.experiment.name)
    return {
        **standing.to_dict(),
        "as_of": latest["as_of"] if latest else None,
        "verdict": latest["verdict"] if latest else None,
    }
