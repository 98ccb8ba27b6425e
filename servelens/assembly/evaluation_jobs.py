"""What the scheduler runs of the evaluations, and what keeps backfills out of its way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from collector.catalog import Catalog
from evaluators.runs.evaluation_store import EvaluationStore
from evaluators.runs.follow import FollowedEvaluations
from evaluators.runs.run_history import RunHistory
from evaluators.runs.scheduled import Surroundings
from evaluators.workers.placement import evaluator_of
from servelens.clock import Clock
from servelens.database import Database
from servelens.lease import Lease
from servelens.settings import Settings


def follow_evaluations(
    settings: Settings,
    catalog: Catalog,
    database: Database,
    clock: Clock,
    stop: threading.Event,
    fence: Callable[[], None],
) -> FollowedEvaluations:
    """The evaluations for one term of leadership, which ``stop`` ends; ``fence`` raises when the term is over."""
    surroundings = Surroundings(
        tables=catalog.tables,
        evaluator=partial(evaluator_of, models_dir=settings.models_dir, cluster=settings.ray.build()),
        history=RunHistory(database, clock),
        clock=clock,
        fence=fence,
        exclusive=lambda endpoint, application_id: scoring_lease(database, endpoint, application_id).held(),
    )
    return FollowedEvaluations(EvaluationStore(database, clock), surroundings, stop)


def scoring_lease(database: Database, endpoint: str, application_id: str) -> Lease:
    """Held by who looks for records without a score, which only one may do at a time."""
    return Lease(database, f"scores of {endpoint} {application_id}"[:200])
