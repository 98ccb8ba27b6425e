"""Experiments, from the settings and in the database. Imports nothing heavy: the proxy uses it."""

from __future__ import annotations

import logging

from experiments.experiment import Experiment
from experiments.lifecycle import Lifecycle
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict
from servelens.settings import Settings

logger = logging.getLogger(__name__)


def build_experiments(settings: Settings) -> tuple[Experiment, ...]:
    """All experiments of the settings file, in its order."""
    return tuple(experiment.build() for experiment in settings.experiments)


def open_lifecycle(settings: Settings, database: Database, clock: Clock) -> Lifecycle:
    """The experiments in the database with those of the settings file in it, whichever process comes first. What of the
    file cannot be applied is said in the log, and on the readiness of the proxies. Raises Unavailable.
    """
    lifecycle = Lifecycle(database, clock)
    try:
        lifecycle.apply_file(build_experiments(settings), by="servelens.yaml")
    except Conflict as error:
        logger.warning("experiments of the settings file that are not as it says: %s", error)
    return lifecycle
