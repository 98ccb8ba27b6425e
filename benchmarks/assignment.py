"""Whether assignment is fair, and what it costs a request: ``python -m benchmarks.assignment`` (two minutes on two cores).

Fair: 10 million units in ten blocks, each with salts and layers of its own.

- ``worst_share_z``: the largest distance of a variant's count from its share, in standard errors, over three weightings
  and three shares (those without a variant counted as one more).
- ``independence_p_min``: the smallest p of Pearson's χ² on cross tables of two experiments with different salts, of the
  place in the layer and the variant, of places in two layers, and of an experiment and its successor at the same places:
  four tables for each block, so a value near 1/40 is to be expected.
- ``moved_by_growth``: units that lose their variant or get another when a share grows; ``in_two_experiments``: units
  that two endpoints' experiments of one layer both have.

Cost: ``choose_served_entity`` with and without an experiment, in turn in one process, over the same requests. ``added``
is the median over rounds of the difference in processor time; the figures are those of an endpoint with one route, which
without an experiment hashes nothing (with two routes the experiment partly replaces the routes' hash, and adds less).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from statistics import median
from typing import Any

from scipy.stats import chi2_contingency

from benchmarks.measuring import print_machine
from experiments.assignment import allocations
from experiments.experiment import Experiment, Variant
from serving_proxy.endpoint import Backend, Endpoint, Route, ServedEntity
from serving_proxy.routing import Identity, Snapshot, choose_served_entity

WEIGHTS = ((50, 50), (90, 5, 5), (99, 1))
PLACES = ((100.0, 0.0), (20.0, 0.0), (12.5, 61.0))
"""Share and the start of it, in percent of the layer."""
BLOCKS = 10
PORTION = 50_000
REQUESTS = 5_000
BACKEND = Backend(("http://127.0.0.1:9",))
Counts = Counter[Any]
AnswerFor = Callable[[str], str | None]


@dataclass(slots=True)
class Findings:
    """What was counted in one block: answers by experiment, pairs of answers by table, and who broke a rule."""

    shares: dict[str, Counts] = field(default_factory=dict)
    tables: dict[str, Counts] = field(default_factory=dict)
    moved: int = 0
    in_two: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description="fairness and cost of assignment")
    parser.add_argument("--units", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=60, help="rounds of the measurement of time")
    arguments = parser.parse_args()
    print_machine()
    added = cost(arguments.rounds)  # first, while nothing else of ours runs
    print(json.dumps({**fairness(arguments.units), **added}))


def fairness(units: int) -> dict[str, float]:
    """All blocks, on as many cores as there are."""
    size = units // BLOCKS
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        found = list(pool.map(partial(examine, size=size), range(BLOCKS)))
    worst = 0.0
    for name, experiment in shared("0").items():
        counts = sum((each.shares[name] for each in found), Counter())
        z = _distances(experiment, counts)
        worst = max(worst, *map(abs, z.values()))
        print(f"{name:24} z: {', '.join(f'{variant} {value:+.2f}' for variant, value in z.items())}")
    p_values: list[float] = []
    for name in found[0].tables:
        p = sorted(_independence(each.tables[name]) for each in found)
        p_values += p
        print(f"{name:24} p: {', '.join(f'{value:.3f}' for value in p)}")
    return {
        "worst_share_z": round(worst, 2),
        "independence_p_min": round(min(p_values), 5),
        "moved_by_growth": sum(each.moved for each in found),
        "in_two_experiments": sum(each.in_two for each in found),
    }


def examine(block: int, size: int) -> Findings:
    """One block of ``size`` units, with its own salts and layers."""
    seed = str(block)
    shares = {name: decider(experiment) for name, experiment in shared(seed).items()}
    one, other = (decider(even(f"{name}-{seed}")) for name in ("one", "other"))
    here, there = (decider(*tenths(f"{name}-{seed}"), by_name=True) for name in ("here", "there"))
    layer = f"growing-{seed}"
    small, large = (decider(even("grown", share, 10, layer=layer)) for share in (15.0, 40.0))
    successor = decider(even("successor", 40, 10, layer=layer))
    elsewhere = decider(even("elsewhere", 30, 50, layer=layer), even("last", 20, 80, layer=layer))
    findings = Findings({name: Counter() for name in shares})
    tables = {name: Counter[Any]() for name in ("two salts", "place and variant", "two layers", "successor")}
    for start in range(block * size, (block + 1) * size, PORTION):
        units = [f"user-{number}" for number in range(start, min(start + PORTION, (block + 1) * size))]
        for name, answer_for in shares.items():
            findings.shares[name].update(map(answer_for, units))
        first, places = list(map(one, units)), list(map(here, units))
        tables["two salts"].update(zip(first, map(other, units), strict=True))
        tables["place and variant"].update(zip(places, first, strict=True))
        tables["two layers"].update(zip(places, map(there, units), strict=True))
        grown = list(map(large, units))
        tables["successor"].update(zip(grown, map(successor, units), strict=True))
        growth = Counter(zip(map(small, units), grown, strict=True))
        findings.moved += sum(n for (before, after), n in growth.items() if before and after != before)
        both = Counter(zip(grown, map(elsewhere, units), strict=True))
        findings.in_two += sum(n for (a, b), n in both.items() if a and b)
    del tables["successor"][None, None]
    findings.tables = tables
    return findings


def shared(seed: str) -> dict[str, Experiment]:
    """The experiments whose shares are checked, by a name without the seed."""
    experiments: dict[str, Experiment] = {}
    for weights in WEIGHTS:
        for share, share_from in PLACES:
            name = f"{'/'.join(map(str, weights))} in {share_from:g}..{share_from + share:g}"
            control, *treatments = (Variant(f"v{n}", "a", weight) for n, weight in enumerate(weights))
            experiments[name] = Experiment(
                f"{name} {seed}",
                "chat",
                control,
                tuple(treatments),
                "success_rate",
                share=share,
                share_from=share_from,
                layer=f"shares-{seed}",
            )
    return experiments


def even(name: str, share: float = 100.0, share_from: float = 0.0, layer: str = "") -> Experiment:
    """An experiment of two even variants."""
    control, new = Variant("control", "a", 50), Variant("new", "b", 50)
    return Experiment(
        name, "chat", control, (new,), "success_rate", share=share, share_from=share_from, layer=layer
    )


def tenths(layer: str) -> list[Experiment]:
    """Ten experiments that divide a layer evenly."""
    return [even(f"{number}", 10, 10 * number, layer=layer) for number in range(10)]


def decider(*experiments: Experiment, by_name: bool = False) -> AnswerFor:
    """What a unit gets on the endpoint: its variant's name, or its experiment's."""
    return allocations(
        experiments, lambda experiment, assignment: experiment.name if by_name else assignment.variant.name
    )["chat"].answer_for


def _distances(experiment: Experiment, counts: Mapping[str | None, int]) -> dict[str, float]:
    """By variant, how many standard errors its count is from its share."""
    n = sum(counts.values())
    chances = {variant.name: experiment.share * variant.weight / 10_000 for variant in experiment.variants}
    distances = {
        name: (counts[name] - n * p) / math.sqrt(n * p * (1 - p)) for name, p in chances.items() if p < 1
    }
    if experiment.share < 100:
        p = 1 - experiment.share / 100
        distances["nobody's"] = (counts[None] - n * p) / math.sqrt(n * p * (1 - p))
    return distances


def _independence(pairs: Mapping[tuple[str, str], int]) -> float:
    rows, columns = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    table = [[pairs[row, column] for column in columns] for row in rows]
    return float(chi2_contingency(table, correction=False).pvalue)


def cost(rounds: int) -> dict[str, float]:
    """Time per request without an experiment, and what one adds: of everybody, of a fifth, and at its worst."""
    figures: dict[str, float] = {}
    contenders = {
        "full": (even("tone"),),
        "part": (even("tone", 20),),
        "all hashed twice": (even("tone", 99.999),),
        "50 in a layer": tuple(even(f"e{n}", 2, 2 * n) for n in range(50)),
    }
    for routes in (1, 2):
        snapshots = {name: snapshot(routes, each) for name, each in {"none": (), **contenders}.items()}
        taken: dict[str, list[float]] = {name: [] for name in snapshots}
        for _ in range(rounds):
            for name, each in snapshots.items():
                taken[name].append(_ns_per_request(each))
        bare = median(taken["none"])
        print(f"routes: {routes}, without an experiment: {bare:.0f} ns")
        for name in contenders:
            added = median(there - none for there, none in zip(taken[name], taken["none"], strict=True))
            ratio = median(there / none for there, none in zip(taken[name], taken["none"], strict=True))
            print(f"  {name:16} adds {added:5.0f} ns, {ratio:.2f} times the time")
            if routes == 1 and name in ("full", "part"):
                figures[f"added_us_{name}_share"] = round(added / 1e3, 3)
    return figures


def snapshot(routes: int, experiments: Iterable[Experiment]) -> Snapshot:
    """Endpoint ``chat`` with one route, or with an even split."""
    entities = (ServedEntity("a", BACKEND), ServedEntity("b", BACKEND))
    split = (Route("a", 100),) if routes == 1 else (Route("a", 50), Route("b", 50))
    return Snapshot.of([Endpoint("chat", entities, split)], experiments)


IDENTITIES = [Identity(f"request-{number}", user=f"user-{number}") for number in range(REQUESTS)]


def _ns_per_request(current: Snapshot) -> float:
    endpoint = current.endpoints["chat"]
    choose = choose_served_entity
    before = time.thread_time_ns()
    for identity in IDENTITIES:
        choose(current, endpoint, identity)
    return (time.thread_time_ns() - before) / REQUESTS


if __name__ == "__main__":
    main()
