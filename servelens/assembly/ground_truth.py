"""Ground truth as jobs of the scheduler: the evaluations whose evaluator is ``ground_truth``."""

from __future__ import annotations

import threading
from functools import partial

from collector.catalog import Catalog
from evaluators.ground_truth.options import EVALUATOR, read_options
from evaluators.ground_truth.runner import GroundTruthRunner
from evaluators.runs.run_history import RunHistory
from evaluators.runs.schedule import Job
from servelens.clock import Clock
from servelens.database import Database
from servelens.settings import Settings


def ground_truth_jobs(
    settings: Settings, catalog: Catalog, database: Database, clock: Clock, stop: threading.Event
) -> list[Job]:
    """One job for each; it waits for the other jobs that write the same scores table."""
    history = RunHistory(database, clock)
    jobs = []
    for evaluation in settings.evaluations:
        if evaluation.evaluator != EVALUATOR:
            continue
        options = read_options(evaluation.options)
        endpoint = evaluation.endpoint
        runner = GroundTruthRunner(catalog.tables(endpoint), endpoint, options, history, clock)
        jobs.append(
            Job(
                f"score {endpoint} {options.evaluator} response",
                evaluation.every_s,
                partial(runner.run, stop),
                group=f"scores of {endpoint}",
            )
        )
    return jobs
