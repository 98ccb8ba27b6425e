"""HTTP: the experiments, their newest report, their history, and a look on demand.

Errors are :class:`~servelens.errors.ServelensError`; the application that includes the router turns them
into RFC 9457 problem details.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query

from experiments.analysis.analyzer import Analyzer
from experiments.experiment import Experiment
from experiments.store import ExperimentStore, Registered


def router(store: ExperimentStore, analyzer_for: Callable[[Experiment], Analyzer]) -> APIRouter:
    """Routes under ``/api/experiments``. Handlers block on database and tables, so they run in worker
    threads.
    """
    routes = APIRouter(prefix="/api/experiments", tags=["experiments"])

    @routes.get("")
    def list_experiments() -> dict[str, Any]:
        """All experiments, the newest first, each with its newest verdict."""
        return {"experiments": [_summary(store, registered) for registered in store.all()]}

    @routes.get("/{name}")
    def get_experiment(name: str) -> dict[str, Any]:
        """The definition, the state and the newest report (null before the first analysis)."""
        return {**_described(store.get(name)), "report": store.latest(name)}

    @routes.get("/{name}/history")
    def get_history(name: str, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """The reports so far, the newest first."""
        return {"experiment": name, "reports": store.history(name, limit=limit)}

    @routes.post("/{name}/analysis")
    def analyze(name: str) -> dict[str, Any]:
        """Look now; looking costs no error probability."""
        experiment = store.get(name).experiment
        return analyzer_for(experiment).analyze(experiment).to_dict()

    return routes


def _described(registered: Registered) -> dict[str, Any]:
    return {
        "name": registered.experiment.name,
        "endpoint": registered.experiment.endpoint,
        "state": registered.state,
        "started_at": registered.started_at.isoformat(),
        "stopped_at": registered.stopped_at.isoformat() if registered.stopped_at else None,
        "definition": registered.experiment.to_dict(),
    }


def _summary(store: ExperimentStore, registered: Registered) -> dict[str, Any]:
    latest = store.latest(registered.experiment.name)
    return {
        **_described(registered),
        "as_of": latest["as_of"] if latest else None,
        "verdict": latest["verdict"] if latest else None,
    }
