"""Drift as jobs of the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from collector.catalog import Catalog
from evaluators.drift.baseline_table import BaselineTable
from evaluators.drift.references import FixedTable, FixedWindow, OtherVariant, Previous, Reference, Trailing
from evaluators.drift.report import ReportWriter
from evaluators.drift.runner import DriftRunner
from evaluators.drift.slices import Slicing
from evaluators.drift.windows import Granularity, Window
from evaluators.runs.run_history import RunHistory
from evaluators.runs.schedule import Job
from servelens.clock import Clock
from servelens.database import Database
from servelens.drift_settings import DriftSettings
from servelens.errors import Invalid
from servelens.settings import Settings

_ANY_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)


def drift_jobs(settings: Settings, catalog: Catalog, database: Database, clock: Clock) -> list[Job]:
    """One job for each block of drift settings; those of one endpoint wait for each other."""
    history = RunHistory(database, clock)
    storage_options = settings.tables.storage_options or None
    jobs = []
    for index, drift in enumerate(settings.drift):
        reference = reference_of(drift, storage_options)
        try:
            slicing = Slicing(tuple(drift.slices), drift.max_slices)
        except Invalid as error:
            raise error.within(f"drift[{index}]") from error
        # The job of the plain comparison has no more to its name than it always had.
        against = "" if isinstance(reference, Previous) else f" against {reference.name}"
        runner = DriftRunner(
            catalog.tables(drift.endpoint),
            drift.endpoint,
            history,
            clock,
            granularity=Granularity.parse(drift.granularity),
            reference=reference,
            slicing=slicing,
            lag=timedelta(seconds=drift.lag_s),
            report=ReportWriter(settings.reports_dir, max_rows=drift.report_rows),
        )
        action: Callable[[], object] = runner.run
        jobs.append(
            Job(
                f"drift {drift.endpoint} {drift.granularity}{against}",
                drift.every_s,
                action,
                group=f"drift of {drift.endpoint}",
            )
        )
    return jobs


def reference_of(drift: DriftSettings, storage_options: Mapping[str, str] | None) -> Reference:
    """What the windows of ``drift`` are compared with."""
    if drift.baseline_start is not None and drift.baseline_end is not None:
        return FixedWindow(Window(drift.baseline_start, drift.baseline_end))
    if drift.trailing is not None:
        trailing = Granularity.parse(drift.trailing)
        return Trailing(trailing.containing(_ANY_TIME).length, str(trailing))
    if drift.baseline_table is not None:
        return FixedTable(BaselineTable(drift.baseline_table, storage_options=storage_options))
    if drift.compare_with is not None:
        divided_by, _, name = drift.compare_with.partition(" ")
        return OtherVariant(name.strip(), divided_by)
    return Previous()
