"""How long an experiment must run, from the endpoint's own recent traffic (``servelens experiment plan``).

The control's served entity says how a metric varies and how many units there are a day; :mod:`experiments.statistics.power`
says what that is enough for. Invariant: nothing is assumed where traffic says nothing; a metric that cannot be planned says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from collector.catalog import EndpointTables
from experiments.analysis.levels import level_of
from experiments.experiment import Experiment, Variant
from experiments.guardrail import Guardrail
from experiments.measurement.measure import measure
from experiments.metrics import metric_for
from experiments.ramp import LONGEST_DAYS
from experiments.report import plain
from experiments.statistics.group_sequential import GroupSequentialDesign
from experiments.statistics.power import (
    Baseline,
    Looks,
    Plan,
    Split,
    always_valid_looks,
    baseline,
    detectable_effect,
    group_sequential_looks,
    guardrail_plan,
    one_look,
    plan,
    units_in,
)
from experiments.statistics.statistic import Moments
from servelens.errors import Invalid

DEFAULT_POWER = 0.8
DEFAULT_EFFECT = 0.05
DEFAULT_DAYS = 7.0
# Beyond these there is nothing to plan, and numbers of units are no integers any more.
_SMALLEST_EFFECT = 1e-6
_LARGEST_POWER = 0.9999
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class Need:
    """What one design needs for the wanted effect: units of the whole experiment and days of the endpoint's traffic.

    ``median_units`` is where it stops on half of the occasions on which the effect is real.
    """

    design: str
    units: int
    days: float
    median_units: float | None


@dataclass(frozen=True, slots=True)
class MetricPlan:
    """One metric and treatment.

    ``effect`` is the relative change to find (of a guardrail, the margin to rule out), in the direction that is hoped for where
    the metric can go there. ``detectable`` is the smallest relative change that the planned units or days find; null where
    nothing was planned. ``reason`` says why there is no plan.
    """

    metric: str
    label: str
    treatment: str
    baseline: float | None
    effect: float | None
    needs: tuple[Need, ...]
    detectable: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ExperimentPlan:
    """The plan of an experiment; ``effect`` is the relative change to find with probability ``power``."""

    experiment: str
    endpoint: str
    unit: str
    window_days: float
    units_per_day: float
    effect: float
    power: float
    alpha: float
    planned_units: int | None
    run_days: float | None
    metrics: tuple[MetricPlan, ...]
    guardrails: tuple[MetricPlan, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values only."""
        values: dict[str, Any] = plain(self)
        return values


def make_plan(
    experiment: Experiment,
    tables: EndpointTables,
    now: datetime,
    *,
    effect: float = DEFAULT_EFFECT,
    power: float = DEFAULT_POWER,
    days: float = DEFAULT_DAYS,
    run_days: float | None = None,
) -> ExperimentPlan:
    """Plan ``experiment`` from the last ``days`` of its endpoint's traffic; with ``run_days`` say what so many days of it
    find, else what the ``planned_units`` do.

    Raises :class:`~servelens.errors.Invalid`, naming the field, for an impossible effect, power or window, and
    :class:`~servelens.errors.Unavailable` when the tables cannot be read.
    """
    if not 0 < days <= LONGEST_DAYS:
        raise Invalid(f"{days} is no window in days", field="days", fix="Use 7, for example.")
    if not _SMALLEST_EFFECT <= effect < math.inf:
        raise Invalid(f"{effect} is no change to look for", field="effect", fix="Use 0.05 for 5 %.")
    if not 0 < power <= _LARGEST_POWER:
        raise Invalid(f"{power} is no power", field="power", fix="Use 0.8, for example.")
    recent = _recent(experiment, tables, now - timedelta(days=days), now)
    units = max((moments.units for moments in recent.values()), default=0)
    treatments = experiment.treatments if experiment.assigns else ()
    return ExperimentPlan(
        experiment=experiment.name,
        endpoint=experiment.endpoint,
        unit=experiment.unit,
        window_days=days,
        units_per_day=units / days,
        effect=effect,
        power=power,
        alpha=experiment.alpha,
        planned_units=experiment.planned_units,
        run_days=run_days,
        metrics=tuple(
            _metric_plan(experiment, name, treatment, recent[name], days, effect, power, run_days)
            for name in (*experiment.primary_metrics, *experiment.secondary_metrics)
            for treatment in treatments
        ),
        guardrails=tuple(
            _guardrail_plan(experiment, guardrail, treatment, recent[guardrail.metric], days, power)
            for guardrail in experiment.guardrails
            for treatment in treatments
        ),
    )


def _recent(
    experiment: Experiment, tables: EndpointTables, since: datetime, until: datetime
) -> dict[str, Moments]:
    """What the control's served entity answered, as if it had been the experiment's control all along."""
    control = experiment.control
    own = (pl.col("served_entity") == control.served_entity) & ~pl.col("is_shadow").fill_null(value=False)
    records = (
        tables.payload.scan(since=since, until=until)
        .filter(own)
        .with_columns(
            pl.lit(experiment.name).alias("experiment"),
            pl.lit(control.name).alias("variant"),
            pl.lit(0, dtype=pl.Int32).alias("phase"),
            pl.lit(1.0).alias("propensity"),
        )
    )
    scores, feedback = (table.scan(since=since, until=until) for table in (tables.scores, tables.feedback))
    found = measure(records, scores, experiment, feedback=feedback, as_of=until)
    return {each.metric.name: each.cells.get((0, control.name), Moments()) for each in found.metrics}


def _metric_plan(
    experiment: Experiment,
    name: str,
    treatment: Variant,
    recent: Moments,
    days: float,
    effect: float,
    power: float,
    run_days: float | None,
) -> MetricPlan:
    metric = metric_for(name)
    if metric.kind == "quantile":
        return _unplanned(
            name, treatment, f"use {metric.value} to plan: a quantile needs about as much or more"
        )
    wanted = -effect if metric.better == "lower" else effect
    try:
        found, split = baseline(metric, recent, days), _split(experiment, treatment)
        if metric.kind == "rate" and found.mean * (1.0 + wanted) >= 1.0:
            wanted = -effect  # what is nearly always so can only become less so
        level = level_of(experiment, name)
        needs = tuple(
            _need(design, plan(found, split, wanted, looks, power))
            for design, looks in _designs(split, level)
        )
        units = experiment.planned_units if run_days is None else units_in(run_days, found, split)
        detectable = _detectable(units, found, split, level, power, increase=wanted > 0)
    except Invalid as error:
        return _unplanned(name, treatment, error.message)
    return MetricPlan(name, metric.label, treatment.name, _shown(found), wanted, needs, detectable, None)


def _guardrail_plan(
    experiment: Experiment,
    guardrail: Guardrail,
    treatment: Variant,
    recent: Moments,
    days: float,
    power: float,
) -> MetricPlan:
    metric = metric_for(guardrail.metric)
    metric = replace(metric, better=guardrail.better or metric.better)
    if metric.kind == "quantile":
        return _unplanned(
            metric.name, treatment, f"use {metric.value} to plan: a quantile needs about as much or more"
        )
    try:
        found, split = baseline(metric, recent, days), _split(experiment, treatment)
        relative = guardrail.margin if metric.scale == "log" else guardrail.margin / found.mean
        # The bound is one-sided at alpha, as a two-sided one at twice that.
        looks = always_valid_looks(split, min(2 * experiment.alpha, 0.49))
        needs = (_need("always valid", guardrail_plan(found, split, relative, looks, power)),)
    except Invalid as error:
        return _unplanned(metric.name, treatment, error.message)
    return MetricPlan(metric.name, metric.label, treatment.name, _shown(found), relative, needs, None, None)


def _designs(split: Split, level: float) -> Sequence[tuple[str, Looks]]:
    fractions = [look / _LOOKS for look in range(1, _LOOKS + 1)]
    return (
        ("always valid", always_valid_looks(split, level)),
        (f"{_LOOKS} planned looks", group_sequential_looks(GroupSequentialDesign(level), fractions)),
        ("one look", one_look(level)),
    )


def _need(design: str, found: Plan) -> Need:
    median = found.median_units if math.isfinite(found.median_units) else None
    return Need(design, found.units, found.days, median)


def _split(experiment: Experiment, treatment: Variant) -> Split:
    weights = (experiment.control.weight, treatment.weight)
    if experiment.rollout is not None:  # what a canary is judged by at its last step
        last = experiment.rollout.steps[-1].weight
        weights = (100.0 - last, last)
    return Split(*weights, experiment.share)


def _detectable(
    units: int | None,
    found: Baseline,
    split: Split,
    level: float,
    power: float,
    *,
    increase: bool,
) -> float | None:
    if not units:
        return None
    looks = always_valid_looks(split, level)
    change = detectable_effect(found, split, units, looks, power, increase=increase)
    # No average of positive values falls by all of itself.
    return change if math.isfinite(change) and change > -1 else None


def _shown(found: Baseline) -> float:
    return math.exp(found.mean) if found.metric.scale == "log" else found.mean


def _unplanned(name: str, treatment: Variant, reason: str) -> MetricPlan:
    return MetricPlan(name, metric_for(name).label, treatment.name, None, None, (), None, reason)
