"""Experiments, from the settings. Imports nothing heavy: the proxy uses it."""

from __future__ import annotations

from experiments.experiment import Experiment
from servelens.settings import Settings


def build_experiments(settings: Settings) -> tuple[Experiment, ...]:
    """All configured experiments, in the file's order."""
    return tuple(experiment.build() for experiment in settings.experiments)
