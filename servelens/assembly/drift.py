"""Drift as jobs of the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from collector.catalog import Catalog
from evaluators.drift.report import ReportWriter
from evaluators.drift.runner import DriftRunner
from evaluators.drift.windows import Granularity, Window
from evaluators.runs.run_history import RunHistory
from evaluators.runs.schedule import Job
from servelens.clock import Clock
from servelens.database import Database
from servelens.drift_settings import DriftSettings
from servelens.settings import Settings


def drift_jobs(settings: Settings, catalog: Catalog, database: Database, clock: Clock) -> list[Job]:
    """One job for each block of drift settings; those of one endpoint wait for each other."""
    history = RunHistory(database, clock)
    jobs = []
    for drift in settings.drift:
        runner = DriftRunner(
            catalog.tables(drift.endpoint),
            drift.endpoint,
            history,
            clock,
            granularity=Granularity.parse(drift.granularity),
            baseline=_baseline(drift),
            lag=timedelta(seconds=drift.lag_s),
            report=ReportWriter(settings.reports_dir, max_rows=drift.report_rows),
        )
        action: Callable[[], object] = runner.run
        jobs.append(
            Job(
                f"drift {drift.endpoint} {drift.granularity}",
                drift.every_s,
                action,
                group=f"drift of {drift.endpoint}",
            )
        )
    return jobs


def _baseline(drift: DriftSettings) -> Window | None:
    if drift.baseline_start is None or drift.baseline_end is None:
        return None
    return Window(drift.baseline_start, drift.baseline_end)
