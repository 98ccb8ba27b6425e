"""HTTP: the evaluations, where they stand, their runs; and what makes, changes, holds and removes them.

Errors are :class:`~servelens.errors.ServelensError`; the application that includes the router turns them into
RFC 9457 problem details. The scheduler takes up a change within seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Query, Response

from evaluators.runs.evaluation import Evaluation
from evaluators.runs.evaluation_store import EvaluationStore, StoredEvaluation
from evaluators.runs.run_history import RunHistory
from evaluators.runs.secret_options import restored
from servelens.api_caller import Caller, Revision
from servelens.errors import Invalid

_FIXED: Final = ("name", "endpoint", "evaluator")


_Limit = Annotated[int, Query(ge=1, le=1000)]


def router(
    store: EvaluationStore, history: RunHistory, parse: Callable[[Mapping[str, Any]], Evaluation]
) -> APIRouter:
    """Routes under ``/api/evaluations``. ``parse`` makes an evaluation of a body in the shape of the settings file's block.
    Handlers block on database and tables, so they run in worker threads.
    """
    routes = APIRouter(prefix="/api/evaluations", tags=["evaluations"])

    def shown(stored: StoredEvaluation) -> dict[str, Any]:
        last = history.recent(evaluation=stored.evaluation.name, limit=1)
        return {**stored.to_dict(), "last_run": last[0].to_dict() if last else None}

    @routes.get("")
    def list_evaluations() -> dict[str, Any]:
        """All evaluations by name, each with its last run."""
        return {"evaluations": [shown(stored) for stored in store.all()]}

    @routes.post("", status_code=201)
    def create(body: Annotated[dict[str, Any], Body()], by: Caller) -> dict[str, Any]:
        """Make an evaluation: a block as in the settings file."""
        return shown(store.create(parse(body), by=by))

    @routes.get("/runs")
    def list_runs(
        endpoint: str | None = None, evaluator: str | None = None, limit: _Limit = 50
    ) -> dict[str, Any]:
        """Runs of all evaluations, the newest first; also those of evaluations that are gone."""
        runs = history.recent(endpoint=endpoint, evaluator=evaluator, limit=limit)
        return {"runs": [run.to_dict() for run in runs]}

    @routes.get("/{name}")
    def get_evaluation(name: str) -> dict[str, Any]:
        """One evaluation with its last run."""
        return shown(store.get(name))

    @routes.patch("/{name}")
    def change(
        name: str, body: Annotated[dict[str, Any], Body()], by: Caller, expected: Revision
    ) -> dict[str, Any]:
        """Change some keys of its block; null means the default. What it is of (name, endpoint, evaluator) stays."""
        current = store.get(name)
        for key in _FIXED:
            if key in body and body[key] != current.evaluation.to_dict()[key]:
                raise Invalid(
                    "cannot be changed.", field=key, fix="Make a new evaluation and delete this one."
                )
        block = current.evaluation.to_dict()
        if isinstance(body.get("options"), dict):
            body["options"] = restored(body["options"], block["options"])
        if body.get("cron") is not None:
            block["every_s"] = None
        if body.get("every_s") is not None:
            block["cron"] = None
        merged = {key: value for key, value in {**block, **body}.items() if value is not None}
        # Against the revision that was merged with, unless the caller names one.
        return shown(store.replace(parse(merged), by=by, expected_revision=expected or current.revision))

    @routes.delete("/{name}", status_code=204)
    def delete(name: str, expected: Revision) -> Response:
        """Remove it. Its scores and runs stay."""
        store.delete(name, expected)
        return Response(status_code=204)

    @routes.post("/{name}/pause")
    def pause(name: str, by: Caller, expected: Revision) -> dict[str, Any]:
        """Start no runs by schedule any more."""
        return shown(store.pause(name, paused=True, by=by, expected_revision=expected))

    @routes.post("/{name}/resume")
    def resume(name: str, by: Caller, expected: Revision) -> dict[str, Any]:
        """Go on after a pause; what has come meanwhile is scored too."""
        return shown(store.pause(name, paused=False, by=by, expected_revision=expected))

    @routes.post("/{name}/run", status_code=202)
    def run(name: str, by: Caller) -> dict[str, Any]:
        """Ask the scheduler for a run now, also while it is paused."""
        return shown(store.request_run(name, by=by))

    @routes.get("/{name}/runs")
    def get_runs(name: str, limit: _Limit = 50) -> dict[str, Any]:
        """Its runs, the newest first."""
        store.get(name)
        return {
            "evaluation": name,
            "runs": [run.to_dict() for run in history.recent(evaluation=name, limit=limit)],
        }

    return routes
