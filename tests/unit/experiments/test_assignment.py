from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, kstest

from experiments.assignment import assign, bucket
from experiments.experiment import Experiment, Variant

THREE = Experiment(
    "three",
    "chat",
    Variant("control", "a", 50),
    (Variant("warm", "b", 30), Variant("hot", "c", 20)),
    "success_rate",
)
UNITS = 1_000_000


def _within_four_se(count: int, probability: float, n: int) -> bool:
    return abs(count - n * probability) <= 4 * math.sqrt(n * probability * (1 - probability))


def test_a_million_units_get_their_shares_within_four_standard_errors() -> None:
    experiment = replace(THREE, share=40)
    counts = {None: 0, "control": 0, "warm": 0, "hot": 0}
    propensity = {"control": 0.2, "warm": 0.12, "hot": 0.08}
    for number in range(UNITS):
        assignment = assign(experiment, f"user-{number}")
        if assignment is None:
            counts[None] += 1
            continue
        counts[assignment.variant.name] += 1
        assert assignment.propensity == pytest.approx(propensity[assignment.variant.name])
    assert _within_four_se(counts[None], 0.6, UNITS)
    assert all(_within_four_se(counts[name], chance, UNITS) for name, chance in propensity.items())


def test_two_experiments_are_independent_of_each_other() -> None:
    other = replace(THREE, name="other", salt="another salt")
    names = [variant.name for variant in THREE.variants]
    table = np.zeros((3, 3), dtype=int)
    for number in range(200_000):
        first, second = assign(THREE, str(number)), assign(other, str(number))
        assert first is not None
        assert second is not None
        table[names.index(first.variant.name), names.index(second.variant.name)] += 1
    assert chi2_contingency(table).pvalue > 1e-4


def test_taking_part_is_independent_of_the_variant() -> None:
    in_share = [number for number in range(100_000) if assign(replace(THREE, share=10), str(number))]
    assert _within_four_se(len(in_share), 0.1, 100_000)
    control = 0
    for number in in_share:
        whole = assign(THREE, str(number))
        assert whole is not None
        control += whole.variant.name == "control"
    assert _within_four_se(control, 0.5, len(in_share))


@given(st.text(), st.floats(0.5, 50), st.floats(50, 100))
def test_growth_of_the_share_keeps_everybody_in_place(unit: str, small: float, large: float) -> None:
    before, after = assign(replace(THREE, share=small), unit), assign(replace(THREE, share=large), unit)
    if before is not None:
        assert after is not None
        assert after.variant == before.variant


def test_a_variant_of_weight_zero_is_never_assigned() -> None:
    drained = Experiment(
        "drained", "chat", Variant("control", "a", 100), (Variant("new", "b", 0),), "success_rate"
    )
    assert {assign(drained, str(number)) for number in range(1_000)} == {(drained.control, 1.0)}


def test_buckets_are_uniform() -> None:
    buckets = [bucket("salt", str(number)) for number in range(100_000)]
    assert min(buckets) >= 0
    assert max(buckets) < 1
    assert kstest(buckets, "uniform").pvalue > 1e-4


def test_the_hash_never_changes() -> None:
    """Running experiments depend on it: a unit must find its variant again after an upgrade."""
    assert bucket("salt", "user-1") == 0.8298019805082419
    assert bucket("", "") == 0.5818916442384907


def test_a_unit_that_is_no_valid_unicode_is_assigned_like_any_other() -> None:
    assert assign(THREE, "\ud800") == assign(THREE, "\ud800")


def test_assignment_loads_nothing_heavy() -> None:
    heavy = ("polars", "scipy", "numpy", "sqlalchemy", "deltalake", "pyarrow", "fastapi", "torch")
    code = f"import experiments.assignment, sys; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
