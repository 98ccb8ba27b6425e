"""Canaries end to end: are the bad ones taken back, how many users do they harm, and do the good ones get through?

``python -m benchmarks.rollout [--runs 200] [--seed 1] [--workers 2]``

Time, users and the models' answers are simulated, the rest is real: users call an endpoint 10 times a second,
:func:`experiments.assignment.assign` gives each of them a variant, and the calls become rows of an inference table.
Every minute :mod:`experiments.measurement` reads them, :mod:`experiments.analysis` judges the treatment, and the controller
(:mod:`experiments.rollout`) decides; the weights that it sets are those of the calls that follow. Steps 5 %,
25 % and 50 %; guardrails: error rate (margin 1 point) and typical latency (margin 10 %).

The simulation knows of each call whether it would have failed under the other variant too
(:mod:`benchmarks.canary_traffic`). *Harmed* are the users who met at least one failure that the control would not
have had; *slowed* those who were answered by a slower treatment.

It prints a line a scenario and ends with one line of JSON: ``bad_rolled_back`` and ``good_promoted`` (shares of the
runs of both bad and of both good canaries), ``median_users_harmed`` (of the canary that doubles the error rate),
``false_rollback`` (share of the runs of the canary that equals the control; with its limit, alpha + 2 standard
errors) and ``runs`` a scenario.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl

from benchmarks.canary_traffic import Traffic
from collector.catalog import SCORE_SCHEMA
from experiments.analysis.look import look
from experiments.analysis.memory import TransientMemory
from experiments.analysis.moment import Moment
from experiments.decision_log import DecisionLog
from experiments.experiment import Experiment, Variant
from experiments.guardrail import Guardrail
from experiments.measurement.measure import Measurements, measure
from experiments.ramp import Ramp, Step
from experiments.report import Report
from experiments.rollout.controller import Controller
from experiments.rollout.webhooks import Webhooks
from experiments.store import ExperimentStore
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
ALPHA = 0.05
PER_SECOND = 10.0
LOOK_S = 60.0
CONTROL_NAME, TREATMENT_NAME = "v7", "v8"
RAMP = Ramp(
    (Step(5, 600, 200), Step(25, 600, 500), Step(50, 600, 1_000)),
    deadline_s=2 * 3_600.0,
)

Analyse = Callable[[Experiment, Measurements, TransientMemory, Moment], Report]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A treatment: what it multiplies the error rate and the latency with; how often the endpoint is called, and
    for how long the rollout is watched.
    """

    name: str
    good: bool | None
    errors: float = 1.0
    latency: float = 1.0
    per_second: float = PER_SECOND
    look_s: float = LOOK_S
    watched_s: float = 4 * 3_600.0


SCENARIOS = (
    Scenario("twice the errors", False, errors=2.0),
    Scenario("30 % slower", False, latency=1.3),
    Scenario("equal", True),
    Scenario("slightly better", True, errors=0.9, latency=0.97),
    Scenario("no traffic", None, per_second=0.0, look_s=6 * 3_600.0, watched_s=48 * 3_600.0),
)


@dataclass(frozen=True, slots=True)
class Run:
    """How one rollout ended (``None``: it still waited) after how many requests, and whom it harmed."""

    scenario: str
    outcome: str | None
    last: str
    requests: int
    harmed: int
    slowed: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200, help="of each scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["POLARS_MAX_THREADS"] = "1"  # for the workers, which read it when they start: a core each
    jobs = [(scenario, arguments.seed, number) for number in range(arguments.runs) for scenario in SCENARIOS]
    spawning = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(arguments.workers, spawning, _open_database, (folder,)) as pool,
    ):
        runs = list(pool.map(_job, jobs, chunksize=10))
    print(json.dumps(summary(runs)))


_databases: list[Database] = []


def _open_database(folder: str) -> None:
    """In each worker, for all its runs."""
    logging.getLogger("experiments").setLevel(logging.ERROR)
    database = Database(f"sqlite:///{Path(folder) / f'{os.getpid()}.db'}")
    database.create_tables()
    _databases.append(database)


def _job(job: tuple[Scenario, int, int]) -> Run:
    return simulate(_databases[0], *job)


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Print a line a scenario; gives the figures."""
    by_scenario = {each.name: [run for run in runs if run.scenario == each.name] for each in SCENARIOS}
    titles = ("", "rolled back", "promoted", "inconclusive", "waits", "requests", "harmed", "slowed")
    print("{:18}{:>13}{:>10}{:>14}{:>7}{:>10}{:>8}{:>8}".format(*titles))
    for name, some in by_scenario.items():
        shares = [_share(some, outcome) for outcome in ("rolled_back", "promoted", "inconclusive", None)]
        print(
            f"{name:18}{shares[0]:>13.1%}{shares[1]:>10.1%}{shares[2]:>14.1%}{shares[3]:>7.1%}"
            f"{_median(some, 'requests'):>10,.0f}{_median(some, 'harmed'):>8,.0f}{_median(some, 'slowed'):>8,.0f}"
        )
    print(
        "requests, harmed and slowed are medians: requests until the rollout ended; users who met a failure that the "
        "control would not have had; users who were answered by a slower treatment"
    )
    bad = [run for each in SCENARIOS if each.good is False for run in by_scenario[each.name]]
    good = [run for each in SCENARIOS if each.good for run in by_scenario[each.name]]
    equal, errors, slow, silent = (
        by_scenario[name] for name in ("equal", "twice the errors", "30 % slower", "no traffic")
    )
    return {
        "bad_rolled_back": round(_share(bad, "rolled_back"), 4),
        "median_users_harmed": _median(errors, "harmed"),
        "good_promoted": round(_share(good, "promoted"), 4),
        "false_rollback": round(_share(equal, "rolled_back"), 4),
        "false_rollback_limit": round(ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / len(equal)), 4),
        "runs": len(equal),
        "median_requests_bad_errors": _median(errors, "requests"),
        "median_requests_bad_latency": _median(slow, "requests"),
        "median_users_slowed": _median(slow, "slowed"),
        "median_requests_good": _median(good, "requests"),
        "no_traffic_waits": sum(run.last == "insufficient_data" for run in silent) / len(silent),
    }


def _share(runs: Sequence[Run], outcome: str | None) -> float:
    return sum(run.outcome == outcome for run in runs) / len(runs)


def _median(runs: Sequence[Run], name: str) -> float:
    return float(statistics.median(getattr(run, name) for run in runs))


def simulate(
    database: Database,
    scenario: Scenario,
    seed: int,
    number: int,
    analyse: Analyse = look,
) -> Run:
    """One rollout of the scenario, from its start to its end."""
    clock = ManualClock(START)
    definition = canary(f"{scenario.name}-{seed}-{number}")
    ExperimentStore(database, clock).register(definition)
    lifecycle = MemoryLifecycle(definition, clock)
    log = DecisionLog(database, clock)
    controller = Controller(
        lifecycle, log, lifecycle.move_route, clock, webhooks=Webhooks(), code_version="benchmark"
    )
    rng = np.random.default_rng((seed, number, crc32(scenario.name.encode())))
    traffic = Traffic(scenario.errors, scenario.latency, rng)
    memory = TransientMemory(phase_weights=lifecycle.weights, now=clock.now)
    scores = pl.DataFrame(SCORE_SCHEMA.empty_table()).lazy()
    last = ""
    while (clock.now() - START).total_seconds() < scenario.watched_s:
        experiment = lifecycle.standing(definition.name).experiment
        traffic.flow(experiment, clock.now(), scenario.look_s, scenario.per_second)
        clock.advance(scenario.look_s)
        measurements = measure(traffic.payload(), scores, experiment)
        report = analyse(experiment, measurements, memory, Moment(clock.now(), "running", START))
        last = controller.step(lifecycle.standing(definition.name), report).kind
        if lifecycle.standing(definition.name).state == "stopped":
            break
    return Run(
        scenario.name,
        lifecycle.standing(definition.name).outcome,
        last,
        traffic.requests,
        len(traffic.harmed),
        len(traffic.treated) if scenario.latency > 1 else 0,
    )


def canary(name: str) -> Experiment:
    """v8 against v7."""
    return Experiment(
        name=name,
        endpoint="chat",
        kind="canary",
        control=Variant(CONTROL_NAME, "chat-7", 95),
        treatments=(Variant(TREATMENT_NAME, "chat-8", 5),),
        primary_metric="error_rate",
        guardrails=(Guardrail("error_rate", margin=0.01), Guardrail("latency_ms", margin=0.1)),
        alpha=ALPHA,
        rollout=RAMP,
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the canary stands."""

    experiment: Experiment
    state: str = "running"
    outcome: str | None = None
    step: int = 0
    step_started_at: datetime | None = START
    started_at: datetime | None = START
    revision: int = 0
    changed_by: str = "benchmark"


class MemoryLifecycle:
    """The lifecycle of one canary, without a database."""

    def __init__(self, experiment: Experiment, clock: ManualClock) -> None:
        self._clock = clock
        self._standing = Standing(experiment)
        self.weights = {experiment.phase: _weights(experiment)}

    def standing(self, _name: str) -> Standing:
        return self._standing

    def begin_phase(
        self,
        name: str,
        weights: dict[str, float],
        *,
        step: int | None = None,
        by: str,
        expected_revision: int | None = None,
    ) -> Experiment:
        before = self._standing
        if before.revision != expected_revision or step is None:
            raise Conflict(f"{name} is at revision {before.revision}", field="revision")
        experiment = before.experiment.with_weights(weights)
        self.weights[experiment.phase] = _weights(experiment)
        self._change(by, experiment=experiment, step=step, step_started_at=self._clock.now())
        return experiment

    def stop(
        self, name: str, by: str, outcome: str, reason: str, expected_revision: int | None = None
    ) -> None:
        self._change(by, state="stopped", outcome=outcome)

    def move_route(self, _endpoint: str, _control: str, _treatment: str, _by: str) -> None:
        """Nobody calls after the end."""

    def _change(self, by: str, **changes: Any) -> None:
        revision = self._standing.revision + 1
        self._standing = replace(self._standing, **changes, changed_by=by, revision=revision)


def _weights(experiment: Experiment) -> dict[str, float]:
    return {variant.name: variant.weight for variant in experiment.variants}


if __name__ == "__main__":
    main()
