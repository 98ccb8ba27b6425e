"""From the tables to sums per phase and variant, in one pass over everything.

Invariant: a record without a value is excluded with a reason and counted, never taken as zero; and each sum is over
units, so that it can be taken apart and added to (:mod:`experiments.measurement.incremental` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from collector.catalog import FEEDBACK_SCHEMA, SCORE_SCHEMA
from experiments.experiment import Experiment
from experiments.measurement.exposures import EXCLUDED, exposures
from experiments.measurement.measured import Cell, Measured, Measurements
from experiments.measurement.outcomes import Engine, Outcomes, feedback_rows, score_rows, with_outcomes
from experiments.measurement.tallies import exclusions, tally
from experiments.measurement.totals import (
    Totals,
    in_two_variants,
    measurements,
    pooled_quantiles,
    ready_pilots,
)
from experiments.measurement.units import settled, totals_of_requests, totals_of_units, unit_rows
from experiments.measurement.values import Reading, reading_for
from servelens.errors import Unavailable

__all__ = ["Cell", "Measured", "Measurements", "measure"]

NO_SCORES = pl.DataFrame(SCORE_SCHEMA.empty_table())
NO_FEEDBACK = pl.DataFrame(FEEDBACK_SCHEMA.empty_table())


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that one pass finds: the totals, the rows of units that they are of (``None`` where each record is a
    unit), and the points at which quantiles are held.
    """

    totals: Totals
    units: pl.DataFrame | None
    pilots: Mapping[str, float]


def measure(
    payload: pl.LazyFrame,
    scores: pl.LazyFrame,
    experiment: Experiment,
    *,
    feedback: pl.LazyFrame | None = None,
    as_of: datetime | None = None,
    pilots: Mapping[str, float] | None = None,
) -> Measurements:
    """Everything that the experiment's analysis rests on, from scans at fixed versions.

    ``as_of`` says whose time for feedback is over (``None``: everybody's), ``pilots`` where quantile metrics are held
    (see :class:`Measured`). Raises :class:`~servelens.errors.Unavailable` when the tables' files cannot be read.
    """
    reading = reading_for(experiment)
    try:
        records, scored, told = pl.collect_all(
            [
                exposures(payload, reading),
                score_rows(scores, reading),
                feedback_rows(NO_FEEDBACK.lazy() if feedback is None else feedback, reading),
            ]
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the tables of {experiment.endpoint} cannot be read: {error}") from error
    outcomes = Outcomes(scored, told, as_of=as_of).with_targets(reading)
    found = survey(with_outcomes(records, outcomes, reading), reading, pilots or {})
    return measurements(found.totals, reading, found.pilots)


def survey(
    records: pl.DataFrame,
    reading: Reading,
    pilots: Mapping[str, float],
    history: pl.DataFrame | None = None,
    engine: Engine = "in-memory",
) -> Survey:
    """Sum up all records of an experiment, with the units' ``history`` if there is one."""
    totals = exclusions(records)
    if records[EXCLUDED].null_count() < len(records):
        records = records.filter(pl.col(EXCLUDED).is_null())
    counted = tally(records, reading, engine)
    # Units are counted with the point before it is known whether there are enough of them for it.
    tentative = {**pooled_quantiles(counted, reading), **pilots}
    rows = None
    if reading.clustered:
        rows = unit_rows(records, reading, tentative, engine)
        units = settled(rows)
        if len(units.torn):
            torn = records.filter(pl.col("unit").is_in(units.torn.implode()))
            counted.add(tally(torn, reading, engine), -1)
            counted.add(in_two_variants(len(torn)))
        counted.add(totals_of_units(units, reading, history, engine))
    else:
        counted.add(totals_of_requests(records, reading, tentative, engine))
    totals.add(counted)
    return Survey(totals, rows, {**ready_pilots(totals, reading, tentative), **pilots})
