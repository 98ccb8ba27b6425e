"""Looks at rows in memory, through the measurement and the analysis that the system has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from experiments.analysis.look import look
from experiments.analysis.memory import Memory, TransientMemory
from experiments.analysis.moment import Moment
from experiments.experiment import Experiment
from experiments.measurement.measure import measure
from experiments.report import Report
from tests.unit.experiments.records import START, payload_frame, score_frame

NOW = START + timedelta(days=3)


def report_of(
    definition: Experiment, rows: Sequence[dict[str, Any]], memory: Memory | None = None, **moment: Any
) -> Report:
    """The report of one look at ``rows``."""
    values: dict[str, Any] = {"as_of": NOW, "state": "running", "started_at": START}
    return look(
        definition,
        measure(payload_frame(rows), score_frame([]), definition),
        TransientMemory() if memory is None else memory,
        Moment(**{**values, **moment}),
    )
