"""What the scheduler runs of the evaluations, and what keeps backfills out of its way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from collector.catalog import Catalog
from evaluators.registry import EvaluatorSpec
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.evaluation_store import EvaluationStore
from evaluators.runs.follow import FollowedEvaluations
from evaluators.runs.run_history import RunHistory
from evaluators.runs.scheduled import Surroundings
from evaluators.runs.secret_options import resolved
from evaluators.workers.placement import evaluator_of
from servelens.clock import Clock
from servelens.database import Database
from servelens.lease import Lease
from servelens.secret_references import Secrets
from servelens.settings import Settings


def follow_evaluations(
    settings: Settings,
    catalog: Catalog,
    database: Database,
    clock: Clock,
    stop: threading.Event,
    fence: Callable[[], None],
    secrets: Secrets,
) -> FollowedEvaluations:
    """The evaluations for one term of leadership, which ``stop`` ends; ``fence`` raises when the term is over."""
    surroundings = Surroundings(
        tables=catalog.tables,
        evaluator=lambda evaluation: evaluator_of(
            with_secrets(evaluation, secrets), settings.models_dir, settings.ray.build()
        ),
        history=RunHistory(database, clock),
        clock=clock,
        fence=fence,
        exclusive=lambda endpoint, application_id: scoring_lease(database, endpoint, application_id).held(),
    )
    return FollowedEvaluations(EvaluationStore(database, clock), surroundings, stop)


def with_secrets(evaluation: Evaluation, secrets: Secrets) -> Evaluation:
    """``evaluation`` with the values of the references in its options. Raises InvalidSettings for one that is not known."""
    spec = evaluation.spec
    return replace(evaluation, spec=EvaluatorSpec(spec.name, resolved(spec.options, secrets.resolve)))


def scoring_lease(database: Database, endpoint: str, application_id: str) -> Lease:
    """Held by who looks for records without a score, which only one may do at a time."""
    return Lease(database, f"scores of {endpoint} {application_id}"[:200])
