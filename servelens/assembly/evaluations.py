"""Evaluators as jobs of the scheduler."""

from __future__ import annotations

import threading
from functools import partial

from collector.catalog import Catalog
from evaluators.runs.run_history import RunHistory
from evaluators.runs.schedule import Job
from servelens.clock import Clock
from servelens.database import Database
from servelens.settings import Settings


def evaluation_jobs(
    settings: Settings, catalog: Catalog, database: Database, clock: Clock, stop: threading.Event
) -> list[Job]:
    """One job for each evaluation; those of one endpoint wait for each other."""
    if not settings.evaluations:
        return []
    # Imported here, since a scheduler that scores nothing should not pay for torch.
    from evaluators.registry import EvaluatorSpec, build
    from evaluators.runs.runner import EvaluationRunner

    history = RunHistory(database, clock)
    jobs = []
    for evaluation in settings.evaluations:
        evaluator = build(EvaluatorSpec(evaluation.evaluator, evaluation.options), settings.models_dir)
        runner = EvaluationRunner(
            catalog.tables(evaluation.endpoint), evaluation.endpoint, evaluator, history, clock
        )
        name = f"score {evaluation.endpoint} {evaluator.name} {evaluator.target}"
        action = partial(runner.run, stop)  # a long catch-up ends at the next batch
        # One scores table has one appender at a time.
        jobs.append(Job(name, evaluation.every_s, action, group=f"scores of {evaluation.endpoint}"))
    return jobs
