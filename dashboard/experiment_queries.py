"""An experiment's newest report, looked at again when the tables have moved on.

The scheduler looks all the time, so what it has found is shown while it is fresh. Otherwise a look is made here, at most
once a minute however many people watch, unless somebody asks for one; looking costs no error probability
(:mod:`experiments.statistics.sequential`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from collector.catalog import Catalog
from dashboard.queries import TableReader
from experiments.analysis.analyzer import Analyzer
from experiments.experiment import Experiment
from experiments.store import ExperimentStore
from servelens.clock import Clock
from servelens.errors import Missing

_FRESH = timedelta(minutes=1)


class ExperimentQueries:
    """Reads and makes reports."""

    def __init__(
        self, catalog: Catalog, store: ExperimentStore, reader: TableReader, clock: Clock, folder: Path
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._reader = reader
        self._clock = clock
        self._folder = folder

    def analyzer(self, experiment: Experiment) -> Analyzer:
        """The analyzer of the experiment's endpoint."""
        return Analyzer(self._catalog.tables(experiment.endpoint), self._store, self._clock, self._folder)

    def report(self, experiment: Experiment, *, look_now: bool = False) -> dict[str, Any] | None:
        """The report in the shape of :mod:`experiments.report`; ``None`` before the endpoint's first record."""
        tables = self._catalog.tables(experiment.endpoint)
        payload, scores = self._reader.version(tables.payload), self._reader.version(tables.scores)
        if payload is None:
            return None
        if not look_now:
            known = self._latest(experiment)
            if known is not None and (
                (known["payload_version"], known["scores_version"]) == (payload, scores)
                or self._is_fresh(known)
            ):
                return known
        minute = self._clock.now().replace(second=0, microsecond=0)
        key = ("experiment", experiment, payload, scores) if look_now else ("experiment", experiment, minute)
        return self._reader.cache.get(
            key, lambda: self.analyzer(experiment).analyze(experiment.name).to_dict()
        )

    def history(self, experiment: Experiment, limit: int = 200) -> list[dict[str, Any]]:
        """The looks so far, the oldest first; empty before the first."""
        try:
            return list(reversed(self._store.history(experiment.name, limit=limit)))
        except Missing:
            return []

    def _latest(self, experiment: Experiment) -> dict[str, Any] | None:
        try:
            return self._store.latest(experiment.name)
        except Missing:
            return None

    def _is_fresh(self, report: dict[str, Any]) -> bool:
        return self._clock.now() - datetime.fromisoformat(report["as_of"]) < _FRESH
