"""What looking all the time costs, and what it finds: ``python -m benchmarks.peeking --seed 7``.

Simulated experiments on the code that the analysis runs, from moments to decision, with a look every 100 units of the
treatment up to 10,000, at α = 5 %. Where there is no difference, every share of runs in which some look found one must
be at most 5 %: the always-valid result with no plan given (``DEFAULT_PLANNED_UNITS``, which makes early looks bold), the
guardrail's one-sided result, the exact two-sided one for rates with one record per unit, and the two-arm quantile
interval. The guardrail is the exact e-value of the counts where there is one, and the one-sided normal mixture on
everything else; on counts that mixture is shown beside it. In brackets, for contrast: the fixed-horizon test, looked at
as often.

``false_positive_worst_excess`` is the largest of rate − 5 % − 2 standard errors of a simulated rate of 5 %; at most 0
is right. ``power_*`` are shares of runs in which the difference was found, ``median_stop_lognormal`` the units per arm
until then, ``canary_rollback`` the power of the guardrail on a 5 % canary that doubles an error rate of 2 % over 20,000
requests, ``power_group_sequential`` that of five planned looks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmarks.repeated_looks import (
    ALPHA,
    Method,
    Outcome,
    Plan,
    by_always_valid,
    by_boundaries,
    by_e_process,
    by_naive_test,
    by_one_sided,
    by_one_sided_e_process,
    simulate,
    simulate_quantile,
)
from benchmarks.simulated_arms import Arm, Binary, Clustered, Lognormal
from experiments.metrics import Metric, metric_for
from experiments.statistics.sequential import DEFAULT_PLANNED_UNITS

ERRORS, LATENCY = metric_for("error_rate"), metric_for("latency_ms")

EVEN = tuple((n, n) for n in range(100, 10_001, 100))
FIVE_PERCENT = tuple((19 * n, n) for n in range(100, 10_001, 100))
CANARY = tuple((19 * n, n) for n in range(100, 1_001, 100))
FIVE_LOOKS = tuple((n, n) for n in range(20_000, 100_001, 20_000))

# In one task; small, so that all cores end together.
RUNS_OF_A_TASK = 50

ALWAYS_VALID, GUARDRAIL, EXACT, QUANTILE, GROUPS, NAIVE, MIXTURE = (
    "always-valid",
    "guardrail",
    "exact",
    "quantile interval",
    "group-sequential",
    "(naive)",
    "one-sided mixture",
)
ON_COUNTS = {
    ALWAYS_VALID: by_always_valid,
    EXACT: by_e_process,
    GUARDRAIL: by_one_sided_e_process,
    MIXTURE: by_one_sided,
    NAIVE: by_naive_test,
}
ON_MEANS = {ALWAYS_VALID: by_always_valid, GUARDRAIL: by_one_sided, NAIVE: by_naive_test}


@dataclass(frozen=True, slots=True)
class Stream:
    """One question: what is compared, how it is looked at, and how many times ``--runs`` it is asked."""

    plan: Plan
    methods: dict[str, Method]
    times: float = 1.0


@dataclass(frozen=True, slots=True)
class QuantileStream:
    """The same for a quantile of values without a difference."""

    arm: Lognormal
    p: float
    times: float = 1.0


def _stream(
    metric: Metric, control: Arm, treatment: Arm, looks: tuple[tuple[int, int], ...], times: float = 1.0
) -> Stream:
    counts = isinstance(control, Binary)
    return Stream(
        Plan(metric, control, treatment, looks, DEFAULT_PLANNED_UNITS),
        ON_COUNTS if counts else ON_MEANS,
        times,
    )


def _five_looks(treatment: float) -> Stream:
    return Stream(
        Plan(ERRORS, Binary(0.02), Binary(treatment), FIVE_LOOKS, FIVE_LOOKS[-1][0] * 2),
        {GROUPS: _in_groups(), NAIVE: by_naive_test},
        10.0,
    )


@lru_cache(maxsize=1)
def _in_groups() -> Method:
    from experiments.statistics.group_sequential import GroupSequentialDesign, obrien_fleming_spending

    units = [n for _, n in FIVE_LOOKS]
    design = GroupSequentialDesign(alpha=ALPHA, spending=obrien_fleming_spending)
    return by_boundaries(design.boundaries([n / units[-1] for n in units]), units)


def no_difference() -> dict[str, Stream | QuantileStream]:
    """Streams in which every finding is false."""
    return {
        "binary 2 %": _stream(ERRORS, Binary(0.02), Binary(0.02), EVEN),
        "lognormal σ = 1": _stream(LATENCY, Lognormal(1), Lognormal(1), EVEN),
        "users of 5 requests, ICC 0.3": _stream(LATENCY, Clustered(), Clustered(), EVEN),
        "5 % share, binary 2 %": _stream(ERRORS, Binary(0.02), Binary(0.02), FIVE_PERCENT),
        "5 % share, binary 0.5 %": _stream(ERRORS, Binary(0.005), Binary(0.005), FIVE_PERCENT),
        "5 % share, lognormal σ = 2": _stream(LATENCY, Lognormal(2), Lognormal(2), FIVE_PERCENT),
        "median of lognormal σ = 1": QuantileStream(Lognormal(1), 0.5),
        "p95 of lognormal σ = 1": QuantileStream(Lognormal(1), 0.95),
    }


def differences() -> dict[str, Stream]:
    """Streams with something to find, and one more without, which only five planned looks are judged by."""
    return {
        "lognormal σ = 1, +10 %": _stream(LATENCY, Lognormal(1), Lognormal(1, 0.1), EVEN, 0.5),
        "users of 5 requests, +10 %": _stream(LATENCY, Clustered(), Clustered(0.1), EVEN, 0.5),
        "5 % canary, errors 2 % → 4 %": _stream(ERRORS, Binary(0.02), Binary(0.04), CANARY, 20.0),
        "five looks, errors 2 % → 2.2 %": _five_looks(0.022),
        "five looks, errors 2 % → 2 %": _five_looks(0.02),
    }


@dataclass(frozen=True, slots=True)
class Task:
    """Some runs of a stream, with a seed of their own."""

    stream: str
    seed: tuple[int, int, int]
    runs: int


def carry_out(task: Task) -> dict[str, Outcome]:
    """Run in a worker; streams are known by name there."""
    stream = {**no_difference(), **differences()}[task.stream]
    rng = np.random.default_rng(task.seed)
    if isinstance(stream, QuantileStream):
        sizes = [n for n, _ in EVEN]
        return {QUANTILE: simulate_quantile(stream.arm, stream.arm, sizes, stream.p, rng, task.runs)}
    return simulate(stream.plan, stream.methods, rng, task.runs)


def run(seed: int, runs: int, workers: int) -> dict[str, dict[str, Outcome]]:
    """All streams; the result depends on ``seed`` and ``runs`` alone."""
    tasks = []
    for index, (name, stream) in enumerate({**no_difference(), **differences()}.items()):
        portions = math.ceil(runs * stream.times / RUNS_OF_A_TASK)
        tasks += [Task(name, (seed, index, portion), RUNS_OF_A_TASK) for portion in range(portions)]
    found: dict[str, dict[str, Outcome]] = {}
    with ProcessPoolExecutor(workers) as pool:
        for task, outcomes in zip(tasks, pool.map(carry_out, tasks), strict=True):
            so_far = found.setdefault(task.stream, {})
            for method, outcome in outcomes.items():
                so_far[method] = so_far[method] + outcome if method in so_far else outcome
    return found


def figures(found: dict[str, dict[str, Outcome]]) -> dict[str, object]:
    """What the last line says."""
    false = {name: found[name] for name in no_difference()}
    excess = max(
        outcome.rate - outcome.allowed
        for outcomes in false.values()
        for method, outcome in outcomes.items()
        if not method.startswith("(")
    )
    lognormal, users, canary, groups, no_groups = (found[name] for name in differences())
    return {
        "false_positive_worst_excess": round(excess, 4),
        "power_lognormal": round(lognormal[ALWAYS_VALID].rate, 4),
        "median_stop_lognormal": lognormal[ALWAYS_VALID].median_stop,
        "power_clustered": round(users[ALWAYS_VALID].rate, 4),
        "canary_rollback": round(canary[GUARDRAIL].rate, 4),
        "power_group_sequential": round(groups[GROUPS].rate, 4),
        "false_positive_group_sequential": round(no_groups[GROUPS].rate, 4),
        "runs": min(outcome.runs for outcomes in false.values() for outcome in outcomes.values()),
        "false_positives": {
            name: {method.strip("()"): round(outcome.rate, 4) for method, outcome in outcomes.items()}
            for name, outcomes in false.items()
        },
    }


def table(found: dict[str, dict[str, Outcome]]) -> list[str]:
    """A line for each stream and method."""
    lines = [f"{'stream':32} {'method':20} {'runs':>6} {'found':>16} {'median stop':>12}"]
    for name, outcomes in found.items():
        for method, outcome in outcomes.items():
            rate = f"{100 * outcome.rate:.2f} ± {100 * outcome.standard_error:.2f} %"
            stop = f"{outcome.median_stop:,.0f}" if math.isfinite(outcome.median_stop) else "never"
            lines.append(f"{name:32} {method:20} {outcome.runs:>6,} {rate:>16} {stop:>12}")
            name = ""
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="false positives and power under continuous looking")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--runs", type=int, default=2_000, help="runs of each false-positive stream")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    before = time.perf_counter()
    found = run(arguments.seed, arguments.runs, arguments.workers)
    print("\n".join(table(found)))
    print(f"{time.perf_counter() - before:.0f} s with {arguments.workers} workers; brackets are for contrast")
    print(json.dumps(figures(found), ensure_ascii=False))


if __name__ == "__main__":
    main()
