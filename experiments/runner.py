"""Looks at every live experiment and lets those that may act do so: canaries up and down their ramps, bandits to new weights.
One that has ended is looked at once more, so that its last report is of all its records.

Invariant: an experiment that cannot be looked at stands in nobody else's way. What failed is raised at the end, all of it,
so that the schedule shows it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from experiments.analysis.analyzer import Analyzer
from experiments.bandit_controller import BanditController
from experiments.lifecycle import Lifecycle
from experiments.rollout.controller import Controller
from experiments.standing import Standing
from experiments.store import ExperimentStore
from servelens.clock import Clock
from servelens.errors import ServelensError, Unavailable

logger = logging.getLogger(__name__)

_KINDS_THAT_ACT: Final = ("canary", "bandit")
# What was answered before the end is in the tables within seconds, and feedback and scores may take longer.
_ON_THEIR_WAY: Final = timedelta(minutes=1)


class ExperimentRunner:
    """One run is one look at each live experiment. ``analyzer_for`` gives the analyzer of an endpoint."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        store: ExperimentStore,
        analyzer_for: Callable[[str], Analyzer],
        rollouts: Controller,
        bandits: BanditController,
        clock: Clock,
    ) -> None:
        self._lifecycle = lifecycle
        self._store = store
        self._analyzer_for = analyzer_for
        self._rollouts = rollouts
        self._bandits = bandits
        self._clock = clock

    def run(self, stop: threading.Event | None = None) -> str:
        """Look at all; gives one line for each. Raises :class:`~servelens.errors.Unavailable` naming what failed."""
        self._rollouts.recover()
        lines, failures = [], []
        for standing in self._lifecycle.standings():
            if not (standing.is_live or self._lacks_its_last_look(standing)):
                continue
            if stop is not None and stop.is_set():
                break
            try:
                lines.append(f"{standing.experiment.name}: {self._look(standing)}")
            except ServelensError as error:
                logger.warning("experiment not looked at: experiment=%s: %s", standing.experiment.name, error)
                failures.append(f"{standing.experiment.name}: {error}")
        if failures:
            raise Unavailable("; ".join(failures))
        return "\n".join(lines)

    def _lacks_its_last_look(self, standing: Standing) -> bool:
        """Whether it has ended, and nobody has looked since. Records may still be on their way for a moment."""
        if standing.stopped_at is None or standing.started_at is None:
            return False
        if self._clock.now() - standing.stopped_at < _ON_THEIR_WAY:
            return False
        latest = self._store.latest(standing.experiment.name)
        return latest is None or latest["state"] != "stopped"

    def _look(self, standing: Standing) -> str:
        experiment = standing.experiment
        report = self._analyzer_for(experiment.endpoint).analyze(experiment.name)
        if not standing.is_live or experiment.kind not in _KINDS_THAT_ACT:
            return report.verdict
        # Whoever changed it while the tables were read is to be heard.
        standing = self._lifecycle.standing(experiment.name)
        if experiment.kind == "canary":
            decision = self._rollouts.step(standing, report)
            return f"{decision.kind}: {decision.reason}"
        began = self._store.phase_began(experiment.name, standing.experiment.phase)
        moved = self._bandits.step(standing, report, self._clock.now() - began)
        return f"{'moved its weights; ' if moved else ''}{report.verdict}"
