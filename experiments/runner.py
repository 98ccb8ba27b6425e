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
from functools import partial
from typing import Final, TypeVar

from experiments.analysis.analyzer import Analyzer
from experiments.bandit_controller import BanditController
from experiments.lifecycle import Lifecycle
from experiments.report import Report
from experiments.rollout.controller import Controller
from experiments.standing import Standing
from experiments.store import ExperimentStore
from servelens.clock import Clock
from servelens.errors import ServelensError, Unavailable

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

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
        self._finished: set[str] = set()

    def run(self, stop: threading.Event | None = None) -> str:
        """Look at all; gives one line for each. Raises :class:`~servelens.errors.Unavailable` naming what failed."""
        failures: list[str] = []
        self._attempt("decisions that were cut in two", self._rollouts.recover, failures)
        looked: list[tuple[Standing, Report]] = []
        for standing in self._lifecycle.standings():
            if not (standing.is_live or self._lacks_its_last_look(standing)):
                continue
            if stop is not None and stop.is_set():
                break
            report = self._attempt(standing.experiment.name, partial(self._look, standing), failures)
            if report is not None:
                looked.append((standing, report))
        lines = []
        # A webhook may take its time: harm that is known is taken back before anybody is asked about anything else.
        for standing, report in sorted(looked, key=lambda each: not _is_harmful(each[1])):
            name = standing.experiment.name
            said = self._attempt(name, partial(self._act, standing, report), failures)
            if said is not None:
                lines.append(f"{name}: {said}")
        if failures:
            raise Unavailable("; ".join(failures))
        return "\n".join(lines)

    def _lacks_its_last_look(self, standing: Standing) -> bool:
        """Whether it has ended, and nobody has looked since. Records may still be on their way for a moment."""
        if standing.stopped_at is None or standing.started_at is None:
            return False
        if self._clock.now() - standing.stopped_at < _ON_THEIR_WAY:
            return False
        name = standing.experiment.name
        if name not in self._finished:
            latest = self._store.latest(name)
            if latest is None or latest["state"] != "stopped":
                return True
            self._finished.add(name)
        return False

    @staticmethod
    def _attempt(what: str, action: Callable[[], _T], failures: list[str]) -> _T | None:
        try:
            return action()
        except ServelensError as error:
            logger.warning("experiment not looked at: experiment=%s: %s", what, error)
            failures.append(f"{what}: {error}")
        except (
            Exception
        ) as error:  # a fault of ours in one look must not keep harm in another from being found
            logger.exception("experiment not looked at: experiment=%s", what)
            failures.append(f"{what}: {error!r}")
        return None

    def _look(self, standing: Standing) -> Report:
        experiment = standing.experiment
        return self._analyzer_for(experiment.endpoint).analyze(experiment.name)

    def _act(self, standing: Standing, report: Report) -> str:
        experiment = standing.experiment
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


def _is_harmful(report: Report) -> bool:
    return any(each.state == "breached" for each in report.guardrails)
