"""Looking every time new units arrive must not raise the false positives; naive peeking shows that it could.

Seeded, so a failure is a change in the code. Quick here; the thorough simulation is a benchmark.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.metrics import metric_for
from tests.statistics.peeking import Draw, Floats, peek

ERRORS, LATENCY, TOXICITY = metric_for("error_rate"), metric_for("latency_ms"), metric_for("score:toxicity")

EVERY_HUNDRED = [(n, n) for n in range(100, 2_001, 100)]
EVERY_FEW = [(n, n) for n in range(5, 406, 10)]
FIVE_PERCENT = [(19 * n, n) for n in range(20, 521, 20)]


def binary(rng: np.random.Generator, rate: float) -> Draw:
    return lambda units: (np.ones(units), (rng.random(units) < rate).astype(float))


def lognormal(rng: np.random.Generator, sigma: float, lift: float = 0.0) -> Draw:
    """Log durations: the analysis takes logarithms when it reads the table."""
    return lambda units: (np.ones(units), rng.normal(math.log1p(lift), sigma, units))


def clustered(rng: np.random.Generator, lift: float = 0.0) -> Draw:
    """Users with five requests each and an intra-class correlation of 0.3 on the log scale."""

    def draw(units: int) -> tuple[Floats, Floats]:
        user = rng.normal(math.log1p(lift), math.sqrt(0.3), units)
        noise = rng.normal(0, math.sqrt(0.7), (units, 5)).sum(axis=1)
        return np.full(units, 5.0), 5 * user + noise

    return draw


def clustered_rate(rng: np.random.Generator, rate: float) -> Draw:
    """Users with one to many requests, some of whom fail much more often than others."""

    def draw(units: int) -> tuple[Floats, Floats]:
        records = rng.poisson(4, units) + 1
        own = rng.beta(2 * rate, 2 * (1 - rate), units)
        return records.astype(float), rng.binomial(records, own).astype(float)

    return draw


def toxicity(rng: np.random.Generator) -> Draw:
    """Nearly all close to zero, three in a hundred high."""

    def draw(units: int) -> tuple[Floats, Floats]:
        high = rng.random(units) < 0.03
        return np.ones(units), np.where(high, rng.uniform(0.5, 1, units), rng.beta(0.5, 50, units))

    return draw


def test_binary_two_percent_every_hundred() -> None:
    rng = np.random.default_rng(1)
    found = peek(ERRORS, binary(rng, 0.02), binary(rng, 0.02), EVERY_HUNDRED, planned_units=4_000, runs=400)
    assert found.always_valid <= found.allowed
    assert found.naive > 2 * found.allowed


def test_lognormal_every_hundred() -> None:
    rng = np.random.default_rng(2)
    found = peek(LATENCY, lognormal(rng, 1), lognormal(rng, 1), EVERY_HUNDRED, planned_units=4_000, runs=400)
    assert found.always_valid <= found.allowed
    assert found.naive > 2 * found.allowed


def test_clustered_users_every_hundred() -> None:
    rng = np.random.default_rng(3)
    found = peek(LATENCY, clustered(rng), clustered(rng), EVERY_HUNDRED, planned_units=4_000, runs=400)
    assert found.always_valid <= found.allowed
    assert found.naive > 2 * found.allowed


def test_clustered_rates_every_hundred() -> None:
    rng = np.random.default_rng(4)
    draw = clustered_rate(rng, 0.05)
    found = peek(ERRORS, draw, draw, EVERY_HUNDRED, planned_units=4_000, runs=400)
    assert found.always_valid <= found.allowed
    assert found.naive > 2 * found.allowed


@pytest.mark.parametrize("name", ["binary", "lognormal", "toxicity"])
def test_looks_from_the_fifth_unit_on(name: str) -> None:
    rng = np.random.default_rng(5)
    metric, draw = {
        "binary": (ERRORS, binary(rng, 0.3)),
        "lognormal": (LATENCY, lognormal(rng, 2)),
        "toxicity": (TOXICITY, toxicity(rng)),
    }[name]
    found = peek(metric, draw, draw, EVERY_FEW, planned_units=100, runs=300)
    assert found.always_valid <= found.allowed
    assert found.naive > found.allowed


@pytest.mark.parametrize("name", ["binary 2 %", "binary 0.5 %", "lognormal", "toxicity"])
def test_a_five_percent_share(name: str) -> None:
    """Where the usual plug-in variance fails: the small arm has seen no event, so it looks sure of it."""
    rng = np.random.default_rng(6)
    metric, draw = {
        "binary 2 %": (ERRORS, binary(rng, 0.02)),
        "binary 0.5 %": (ERRORS, binary(rng, 0.005)),
        "lognormal": (LATENCY, lognormal(rng, 2)),
        "toxicity": (TOXICITY, toxicity(rng)),
    }[name]
    found = peek(metric, draw, draw, FIVE_PERCENT, planned_units=10_400, runs=300)
    assert found.always_valid <= found.allowed
    assert found.naive > 2 * found.allowed


def test_a_real_difference_is_found_and_early() -> None:
    rng = np.random.default_rng(7)
    looks = [(n, n) for n in range(100, 5_001, 100)]
    slow = lognormal(rng, 1, lift=0.2)
    found = peek(LATENCY, lognormal(rng, 1), slow, looks, planned_units=5_000, runs=60)
    assert found.always_valid == 1.0
    assert found.median_stop <= 1_000
    users = peek(LATENCY, clustered(rng), clustered(rng, 0.2), looks, planned_units=5_000, runs=60)
    assert users.always_valid == 1.0
    assert users.median_stop < found.median_stop
    errors = peek(ERRORS, binary(rng, 0.02), binary(rng, 0.04), looks, planned_units=5_000, runs=60)
    assert errors.always_valid >= 0.95
