"""Looks at the experiments of one endpoint: the tables at fixed versions, a look, and the report that is kept."""

from __future__ import annotations

import logging

from collector.catalog import EndpointTables
from experiments.analysis.look import Moment, look
from experiments.analysis.memory import StoredMemory
from experiments.experiment import Experiment
from experiments.measurement.measure import measure
from experiments.report import Report
from experiments.store import ExperimentStore
from servelens.clock import Clock

logger = logging.getLogger(__name__)


class Analyzer:
    """Analyses the experiments of one endpoint."""

    def __init__(self, tables: EndpointTables, store: ExperimentStore, clock: Clock) -> None:
        self._tables = tables
        self._store = store
        self._clock = clock

    def analyze(self, experiment: Experiment) -> Report:
        """Look at the experiment now, registering it if need be, and keep the report.

        Raises :class:`~servelens.errors.Conflict` when the definition contradicts the one that was started,
        and :class:`~servelens.errors.Unavailable` when tables or database cannot be read.
        """
        registered = self._store.register(experiment)
        moment = Moment(
            as_of=self._clock.now(),
            state=registered.state,
            started_at=registered.started_at,
            until=registered.stopped_at,
            payload_version=self._tables.payload.version(),
            scores_version=self._tables.scores.version(),
        )
        measurements = measure(
            self._tables.payload.scan(until=moment.until, version=moment.payload_version),
            self._tables.scores.scan(version=moment.scores_version),
            experiment,
        )
        report = look(experiment, measurements, StoredMemory(self._store, experiment.name), moment)
        self._store.add_analysis(
            experiment.name,
            moment.as_of,
            moment.payload_version,
            moment.scores_version,
            report.to_dict(),
        )
        logger.info(
            "experiment analysed: experiment=%s units=%d verdict=%s",
            experiment.name,
            report.units,
            report.verdict,
        )
        return report
