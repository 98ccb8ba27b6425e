"""What all later statistics follow from: a few sums, to which records are added and from which they are taken away.

Invariant: addition is exact in the counts. In the other sums it rounds as floating point does, so they are made anew
from the units now and then (:mod:`experiments.measurement.state`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, timedelta
from itertools import groupby
from typing import Any, Final

import polars as pl

from experiments.measurement.exposures import IN_TWO_VARIANTS
from experiments.measurement.histogram import Histogram
from experiments.measurement.measured import Cell, Measured, Measurements
from experiments.measurement.values import Reading
from experiments.metrics import Metric
from experiments.statistics.cuped import CovariateMoments
from experiments.statistics.statistic import CrossMoments, Moments

Sums = dict[tuple[Any, ...], tuple[float, ...]]
"""Sums by key; the first is a count, and a key whose count is zero is left out."""

# Fewer say little about where the quantile lies.
_UNITS_FOR_A_PILOT: Final = 30
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Totals:
    """Keys are made of a metric's place among the experiment's metrics, a day (since 1970), a phase, and a variant's
    place.

    ``records`` (phase, variant): count, sum and count of propensities. ``excluded`` (reason): count. ``reasons``
    (metric, variant, reason): count. ``bins`` (metric, phase, variant, bin): count. ``exposures`` (phase, variant):
    units. ``moments`` (metric, day, phase, variant): the fields of :class:`Moments`. ``cross`` (metric, phase, variant,
    later phase, variant): units, then the fields of :class:`CrossMoments`. ``covariates`` (metric, phase, variant): units,
    then the fields of :class:`CovariateMoments`.
    """

    records: Sums = field(default_factory=dict)
    excluded: Sums = field(default_factory=dict)
    reasons: Sums = field(default_factory=dict)
    bins: Sums = field(default_factory=dict)
    exposures: Sums = field(default_factory=dict)
    moments: Sums = field(default_factory=dict)
    cross: Sums = field(default_factory=dict)
    covariates: Sums = field(default_factory=dict)

    def add(self, other: Totals, sign: int = 1) -> None:
        """Add ``other``, or take it away with ``sign`` −1."""
        for each in fields(self):
            _add(getattr(self, each.name), getattr(other, each.name), sign)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values; :func:`totals_from_json` reads it back exactly."""
        return {
            each.name: [[list(key), list(sums)] for key, sums in getattr(self, each.name).items()]
            for each in fields(self)
        }


def totals_from_json(values: Mapping[str, Any]) -> Totals:
    """What :meth:`Totals.to_json` gave. Raises :class:`KeyError`, :class:`TypeError` or :class:`ValueError` for
    anything else.
    """
    return Totals(
        **{
            each.name: {tuple(key): tuple(map(float, sums)) for key, sums in values[each.name]}
            for each in fields(Totals)
        }
    )


def sums_of(frame: pl.DataFrame, keys: int, *before: Any) -> Sums:
    """The rows of a grouped frame: ``before`` and the first ``keys`` columns are the key."""
    return {(*before, *row[:keys]): row[keys:] for row in frame.rows() if row[keys]}


def ready_pilots(totals: Totals, reading: Reading, tentative: Mapping[str, float]) -> dict[str, float]:
    """Those of the ``tentative`` points whose metric has enough units in each variant that gets traffic."""
    needed = [place for place, variant in enumerate(reading.experiment.variants) if variant.weight > 0]
    ready = {}
    for number, metric in enumerate(reading.metrics):
        if metric.name not in tentative:
            continue
        units = dict.fromkeys(needed, 0.0)
        for (which, _, _, variant), sums in totals.moments.items():
            if which == number and variant in units:
                units[variant] += sums[0]
        if units and min(units.values()) >= _UNITS_FOR_A_PILOT:
            ready[metric.name] = tentative[metric.name]
    return ready


def pooled_quantiles(totals: Totals, reading: Reading) -> dict[str, float]:
    """Where each quantile metric's quantile lies over all variants, by the metric's name."""
    found = {}
    for number, metric in enumerate(reading.metrics):
        if metric.quantile is not None:
            pooled = sum(_histograms(totals, number, reading.names).values(), Histogram())
            if pooled.bins:
                found[metric.name] = pooled.quantile(metric.quantile)
    return found


def measurements(totals: Totals, reading: Reading, pilots: Mapping[str, float]) -> Measurements:
    """The totals in the shape that statistics take."""
    names = reading.names
    records: dict[str, int] = {}
    propensities: dict[int, dict[str, float]] = {}
    for (phase, variant), (count, total, logged) in sorted(totals.records.items()):
        records[names[variant]] = records.get(names[variant], 0) + int(count)
        if logged:
            propensities.setdefault(phase, {})[names[variant]] = total / logged
    exposures: dict[int, dict[str, int]] = {}
    for (phase, variant), (units, *_) in sorted(totals.exposures.items()):
        exposures.setdefault(phase, {})[names[variant]] = int(units)
    return Measurements(
        metrics=tuple(
            _measured(totals, number, metric, names, pilots) for number, metric in enumerate(reading.metrics)
        ),
        exposures=exposures,
        records=records,
        excluded={reason: int(count) for (reason,), (count, *_) in sorted(totals.excluded.items())},
        propensities=propensities,
        phase_records={
            (phase, names[variant]): int(count)
            for (phase, variant), (count, *_) in sorted(totals.records.items())
        },
    )


def _measured(
    totals: Totals, number: int, metric: Metric, names: list[str], pilots: Mapping[str, float]
) -> Measured:
    pilot = pilots.get(metric.name)
    said = metric.quantile is None or pilot is not None
    periods: dict[date, dict[Cell, Moments]] = {}
    cells: dict[Cell, Moments] = {}
    own = sorted((key[1:], sums) for key, sums in totals.moments.items() if said and key[0] == number)
    for day, rows in groupby(own, key=lambda row: row[0][0]):
        of_day = periods.setdefault(_EPOCH + timedelta(days=day), {})
        for (_, phase, variant), (units, *rest) in rows:
            cell = (phase, names[variant])
            of_day[cell] = Moments(int(units), *rest)
            cells[cell] = cells.get(cell, Moments()) + of_day[cell]
    cross = {
        ((phase, names[variant]), (phase2, names[variant2])): CrossMoments(*rest)
        for (which, phase, variant, phase2, variant2), (_, *rest) in sorted(totals.cross.items())
        if said and which == number
    }
    excluded: dict[str, dict[str, int]] = {}
    for (which, variant, reason), (count, *_) in sorted(totals.reasons.items()):
        if which == number:
            excluded.setdefault(names[variant], {})[reason] = int(count)
    covariates = {
        (phase, names[variant]): _covariates(sums[1:])
        for (which, phase, variant), sums in sorted(totals.covariates.items())
        if which == number
    }
    return Measured(
        metric,
        dict(sorted(cells.items())),
        cross,
        excluded,
        periods,
        _histograms(totals, number, names),
        pilot,
        covariates,
    )


def _covariates(sums: tuple[float, ...]) -> CovariateMoments:
    known, new = (Moments(int(units), *rest) for units, *rest in (sums[:6], sums[6:12]))
    return CovariateMoments(known, new, *sums[12:])


def _histograms(totals: Totals, number: int, names: list[str]) -> dict[Cell, Histogram]:
    bins: dict[Cell, dict[int, int]] = {}
    for (which, phase, variant, place), (count, *_) in totals.bins.items():
        if which == number:
            bins.setdefault((phase, names[variant]), {})[place] = int(count)
    return {cell: Histogram(counts) for cell, counts in sorted(bins.items())}


def _add(into: Sums, other: Sums, sign: int) -> None:
    for key, sums in other.items():
        known = into.get(key)
        added = (
            _signed(sums, sign)
            if known is None
            else tuple(a + sign * b for a, b in zip(known, sums, strict=True))
        )
        if added[0]:
            into[key] = added
        else:
            into.pop(key, None)


def _signed(sums: Iterable[float], sign: int) -> tuple[float, ...]:
    return tuple(sign * value for value in sums)


def in_two_variants(count: int) -> Totals:
    """``count`` records of units that met two variants."""
    return Totals(excluded={(IN_TWO_VARIANTS,): (float(count),)} if count else {})
