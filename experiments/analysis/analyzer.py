"""Looks at the experiments of one endpoint: the tables at fixed versions, a look, and the report that is kept."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Final

from collector.catalog import EndpointTables
from experiments.analysis.look import look
from experiments.analysis.memory import StoredMemory
from experiments.analysis.moment import Moment
from experiments.measurement.incremental import Measurer, Versions
from experiments.report import Report
from experiments.store import ExperimentStore
from servelens.clock import Clock
from servelens.errors import Conflict

logger = logging.getLogger(__name__)

# Clocks of other machines may be behind, and a database may be younger than the traffic that it is told of.
BEFORE_START: Final = timedelta(days=7)


class Analyzer:
    """Analyses the experiments of one endpoint. ``folder`` keeps what was read from look to look, so that a look reads only what
    is new; without one every look reads everything.
    """

    def __init__(
        self, tables: EndpointTables, store: ExperimentStore, clock: Clock, folder: Path | None = None
    ) -> None:
        self._tables = tables
        self._store = store
        self._clock = clock
        self._measurer = Measurer(tables, folder)

    def analyze(self, name: str) -> Report:
        """Look at the experiment called ``name`` now, and keep the report.

        Raises :class:`~servelens.errors.Missing` when there is none, :class:`~servelens.errors.Conflict` when it has not
        started, and :class:`~servelens.errors.Unavailable` when tables or database cannot be read.
        """
        registered = self._store.get(name)
        if registered.state == "draft":
            raise Conflict(
                f"experiment '{name}' is a draft, so there is nothing to look at.",
                field="state",
                fix="Start it first.",
            )
        experiment = registered.experiment
        # Scores and feedback are about records, so the records' version is the oldest of the three.
        moment = Moment(
            as_of=self._clock.now(),
            state=registered.state,
            started_at=registered.started_at,
            since=registered.started_at - BEFORE_START,
            until=registered.stopped_at,
            payload_version=self._tables.payload.version(),
            scores_version=self._tables.scores.version(),
            feedback_version=self._tables.feedback.version(),
        )
        measurer = self._measurer
        if registered.state == "stopped":
            # Nothing new will come: what was kept from look to look is of no more use, and holds a row a unit.
            measurer.discard(name)
            measurer = Measurer(self._tables, None)
        measurements = measurer.measure(
            experiment,
            versions=Versions(moment.payload_version, moment.scores_version, moment.feedback_version),
            as_of=moment.as_of,
            since=moment.since,
            until=moment.until,
            started_at=registered.started_at,
        )
        report = look(experiment, measurements, StoredMemory(self._store, name), moment)
        self._store.add_analysis(
            name, moment.as_of, moment.payload_version, moment.scores_version, report.to_dict()
        )
        logger.info(
            "experiment analysed: experiment=%s units=%d verdict=%s", name, report.units, report.verdict
        )
        return report
