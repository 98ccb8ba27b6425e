"""Ground truth as jobs of the scheduler."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial

from collector.catalog import Catalog
from evaluators.drift.windows import Granularity
from evaluators.ground_truth.options import read_options
from evaluators.ground_truth.quality_runner import QualityRunner
from evaluators.ground_truth.runner import GroundTruthRunner
from evaluators.runs.run_history import RunHistory
from evaluators.runs.schedule import Job
from servelens.clock import Clock
from servelens.database import Database
from servelens.settings import Settings


def ground_truth_jobs(
    settings: Settings, catalog: Catalog, database: Database, clock: Clock, stop: threading.Event
) -> list[Job]:
    """Two jobs for each block of settings: the scores (those of one endpoint wait for each other), and the quality of
    windows.
    """
    history = RunHistory(database, clock)
    jobs = []
    for block in settings.ground_truth:
        endpoint, options = block.endpoint, read_options(block.options)
        runner = GroundTruthRunner(catalog.tables(endpoint), endpoint, options, history, clock)
        name = f"score {endpoint} {options.evaluator} response"
        jobs.append(Job(name, block.every_s, partial(runner.run, stop), group=f"truth of {endpoint}"))
        quality = QualityRunner(
            catalog.tables(endpoint),
            options.evaluator,
            clock,
            granularity=Granularity.parse(block.granularity),
            lag=timedelta(seconds=block.lag_s),
        )
        name = f"quality {endpoint} {options.evaluator} {block.granularity}"
        jobs.append(Job(name, max(block.every_s, 60.0), quality.run))
    return jobs
