"""Experiments, from the settings. Imports nothing heavy: the proxy uses it."""

from __future__ import annotations

from experiments.experiment import Experiment, Variant
from servelens.settings import ExperimentSettings, Settings, VariantSettings


def build_experiments(settings: Settings) -> tuple[Experiment, ...]:
    """All configured experiments, in the file's order."""
    return tuple(_experiment(experiment) for experiment in settings.experiments)


def _experiment(settings: ExperimentSettings) -> Experiment:
    return Experiment(
        name=settings.name,
        endpoint=settings.endpoint,
        control=_variant(settings.control),
        treatments=tuple(_variant(treatment) for treatment in settings.treatments),
        primary_metric=settings.primary_metric,
        secondary_metrics=tuple(settings.secondary_metrics),
        unit=settings.unit,
        share=settings.share,
        salt=settings.salt or settings.name,
        phase=settings.phase,
        alpha=settings.alpha,
        planned_units=settings.planned_units,
    )


def _variant(settings: VariantSettings) -> Variant:
    return Variant(settings.name or settings.served_entity, settings.served_entity, settings.weight)
