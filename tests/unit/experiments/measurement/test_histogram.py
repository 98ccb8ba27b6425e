from __future__ import annotations

import math
import sys

import numpy as np
import polars as pl
import pytest

from experiments.measurement.histogram import RELATIVE_WIDTH, Histogram, bin_number, bin_numbers


def _histogram(values: list[float]) -> Histogram:
    numbers = pl.DataFrame({"value": values}, schema={"value": pl.Float64}).select(
        bin_numbers(pl.col("value"))
    )
    return Histogram(dict(numbers.to_series().value_counts().iter_rows()))


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.95, 0.999])
def test_quantiles_agree_with_numpy_to_the_width_of_a_bin(probability: float) -> None:
    values = np.random.default_rng(3).lognormal(6.0, 1.5, 20_000)
    exact = float(np.quantile(values, probability, method="inverted_cdf"))
    found = _histogram(values.tolist()).quantile(probability)
    assert exact <= found * (1 + 1e-12)
    assert found <= exact * (1 + RELATIVE_WIDTH) * (1 + 1e-12)


def test_a_bin_stands_for_values_up_to_its_edge() -> None:
    found = _histogram([float(value) for value in range(1, 3000)])
    upper, lower = found.edges, found.edges / (1 + RELATIVE_WIDTH)
    inside = np.searchsorted(np.arange(1.0, 3000.0), upper * (1 + 1e-12), side="right")
    assert np.diff(np.concatenate([[0], inside])).tolist() == found.counts.tolist()
    assert np.all((lower < found.values) & (found.values < upper))


def test_bins_are_in_the_order_of_their_values_on_both_sides_of_zero() -> None:
    values = [-1000.0, -1.0, -0.001, 0.0, 0.001, 1.0, 1000.0]
    found = _histogram(values)
    assert np.all(np.diff(found.edges) > 0)
    assert np.all(np.diff(found.values) > 0)
    assert np.allclose(found.values, values, rtol=RELATIVE_WIDTH, atol=0)


@pytest.mark.parametrize("value", [5e-324, sys.float_info.min, 1e-300, 1e300, sys.float_info.max])
def test_the_smallest_and_the_largest_numbers_have_a_bin(value: float) -> None:
    assert 0 < bin_number(value) < 2**31
    assert bin_number(-value) == -bin_number(value)
    (middle,) = Histogram({bin_number(value): 1}).values
    assert math.isclose(middle, value, rel_tol=0.01, abs_tol=1e-323)


def test_addition_counts_records_of_both() -> None:
    first, second = [1.0, 2.0, 2.0, 0.0], [2.0, 7.0]
    both = _histogram(first) + _histogram(second)
    assert both == _histogram(first + second)
    assert (both.total, both.counts.tolist()) == (6, [1, 1, 3, 1])


def test_no_records_have_no_quantile() -> None:
    nothing = Histogram()
    assert math.isnan(nothing.quantile(0.5))
    assert nothing.total == 0
    assert nothing.edges.size == nothing.values.size == nothing.counts.size == 0
