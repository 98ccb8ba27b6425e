"""How an experiment's error probability is shared, and what was planned."""

from __future__ import annotations

from experiments.experiment import Experiment, Variant
from experiments.statistics.sequential import DEFAULT_PLANNED_UNITS


def primary_level(experiment: Experiment) -> float:
    """Each primary interval's level: Bonferroni over primary metrics and treatments, so that all hold at once."""
    return experiment.alpha / (len(experiment.treatments) * len(experiment.primary_metrics))


def level_of(experiment: Experiment, metric: str) -> float:
    """The level of the intervals of ``metric``; those of secondary metrics are shared among the treatments only."""
    if metric in experiment.primary_metrics:
        return primary_level(experiment)
    return experiment.alpha / len(experiment.treatments)


def guardrail_level(experiment: Experiment) -> float:
    """α/m: what each of m guardrails (over all treatments) may spend on a false alarm."""
    return experiment.alpha / (len(experiment.guardrails) * len(experiment.treatments))


def planned_units(experiment: Experiment, treatment: Variant) -> float:
    """Units planned for the control and ``treatment`` together."""
    if experiment.planned_units is None:
        return DEFAULT_PLANNED_UNITS
    share = (experiment.control.weight + treatment.weight) / 100.0
    return experiment.planned_units * share if share > 0 else float(experiment.planned_units)
