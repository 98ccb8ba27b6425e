"""Stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from collector.catalog import EndpointTables
from experiments.experiment import Experiment
from experiments.measurement.measure import measure
from experiments.measurement.measured import Measurements


@dataclass(frozen=True, slots=True)
class Versions:
    payload: int | None
    scores: int | None
    feedback: int | None


class Measurer:
    def __init__(self, tables: EndpointTables, folder: Path | None) -> None:
        self._tables = tables

    def measure(
        self,
        experiment: Experiment,
        *,
        versions: Versions,
        as_of: datetime,
        since: datetime | None,
        until: datetime | None,
        pilots: Mapping[str, float] | None = None,
    ) -> Measurements:
        return measure(
            self._tables.payload.scan(since=since, until=until, version=versions.payload),
            self._tables.scores.scan(since=since, version=versions.scores),
            experiment,
            feedback=self._tables.feedback.scan(version=versions.feedback),
            as_of=as_of,
            pilots=pilots,
        )
