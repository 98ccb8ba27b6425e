from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluators.drift.sketches import numeric
from evaluators.drift.sketches.distinct import number_hashes
from evaluators.drift.sketches.numeric import CAPACITY, ROWS_AT_ONCE, NumericSketch
from evaluators.drift.sketches.sample import Sample
from servelens.errors import Invalid

numbers = st.lists(
    st.one_of(st.none(), st.floats(-1e6, 1e6).map(lambda x: round(x, 1)), st.sampled_from([np.nan, np.inf])),
    max_size=60,
)


def sketch_of(values: list[float | None]) -> NumericSketch:
    return NumericSketch.of(pl.Series(values, dtype=pl.Float64))


def same(a: NumericSketch, b: NumericSketch) -> None:
    assert (a.rows, a.nulls, a.not_finite, a.zeros, a.distinct) == (
        b.rows,
        b.nulls,
        b.not_finite,
        b.zeros,
        b.distinct,
    )
    assert a.sample.values.tolist() == b.sample.values.tolist()
    assert a.sample.weights.tolist() == b.sample.weights.tolist()
    assert a.sample.rank_error == b.sample.rank_error
    assert a.moments.mean == pytest.approx(b.moments.mean, rel=1e-9, abs=1e-6)
    assert a.moments.m2 == pytest.approx(b.moments.m2, rel=1e-6, abs=1e-3)
    assert (a.moments.minimum, a.moments.maximum) == (b.moments.minimum, b.moments.maximum)


def rank_error(sketch: NumericSketch, values: NDArray[np.float64]) -> int:
    """By how many values the sketch is wrong at the most, over all places."""
    ordered = np.sort(values)
    places = np.unique(np.concatenate([ordered, sketch.sample.values]))
    worst = 0
    for side in ("left", "right"):
        true = np.searchsorted(ordered, places, side=side)
        counts = np.concatenate([[0], sketch.sample.cumulated])
        worst = max(
            worst, int(np.abs(true - counts[np.searchsorted(sketch.sample.values, places, side=side)]).max())
        )
    return worst


@given(numbers, numbers, numbers)
def test_parts_merge_into_the_sketch_of_the_whole_in_any_order(
    a: list[float | None], b: list[float | None], c: list[float | None]
) -> None:
    whole = sketch_of(a + b + c)
    parts = [sketch_of(part) for part in (a, b, c)]
    same(NumericSketch.merged(parts), whole)
    same(NumericSketch.merged(parts[::-1]), whole)
    same(NumericSketch.merged([NumericSketch.merged(parts[:2]), parts[2]]), whole)


@given(numbers)
def test_bytes_give_the_sketch_back(values: list[float | None]) -> None:
    sketch = sketch_of(values)
    same(NumericSketch.from_bytes(sketch.to_bytes()), sketch)


def test_a_compressed_sketch_survives_its_bytes() -> None:
    sketch = NumericSketch.of(pl.Series(np.random.default_rng(1).normal(size=10_000)))
    again = NumericSketch.from_bytes(sketch.to_bytes())
    same(again, sketch)
    assert again.to_bytes() == sketch.to_bytes()


@pytest.mark.parametrize("kind", ["continuous", "heavy", "mixed", "sorted"])
def test_ranks_are_off_by_no_more_than_the_sketch_says(kind: str) -> None:
    generator = np.random.default_rng(2)
    values = {
        "continuous": lambda: generator.lognormal(sigma=3, size=50_000),
        "heavy": lambda: np.round(generator.lognormal(sigma=3, size=50_000), 1),
        "mixed": lambda: np.where(generator.random(50_000) < 0.4, 7.0, generator.normal(size=50_000)),
        "sorted": lambda: np.arange(50_000.0),
    }[kind]()
    sketch = NumericSketch.of(pl.Series(values))
    assert sketch.sample.values.size <= CAPACITY
    assert rank_error(sketch, values) <= sketch.sample.rank_error <= values.size / (2 * CAPACITY) + 1
    assert sketch.sample.size == values.size


def test_a_hierarchy_of_merges_keeps_what_it_says_of_its_error() -> None:
    """Hours into days into a month; each level adds half a block at the most."""
    generator = np.random.default_rng(3)
    hours = [generator.normal(loc=index % 7, size=9_000) for index in range(24)]
    days = [
        NumericSketch.merged([NumericSketch.of(pl.Series(hour)) for hour in hours[start : start + 8]])
        for start in (0, 8, 16)
    ]
    month = NumericSketch.merged(days)
    values = np.concatenate(hours)
    assert rank_error(month, values) <= month.sample.rank_error
    assert month.sample.error <= 3 / (2 * CAPACITY) + 24 / values.size
    assert month.moments.mean == pytest.approx(values.mean())
    assert month.moments.stddev == pytest.approx(values.std(ddof=1))
    assert (month.moments.minimum, month.moments.maximum) == (values.min(), values.max())
    other_way = NumericSketch.merged(days[::-1])
    assert other_way.sample.values.tolist() == month.sample.values.tolist()


def test_many_rows_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).normal(size=30_000)
    monkeypatch.setattr(numeric, "ROWS_AT_ONCE", 7_000)
    sketch = NumericSketch.of(pl.Series(values))
    assert (sketch.rows, sketch.sample.size) == (30_000, 30_000)
    assert rank_error(sketch, values) <= sketch.sample.rank_error
    assert sketch.sample.error <= 1 / (2 * CAPACITY) * 1.3 + 6 / values.size
    assert ROWS_AT_ONCE > 100_000


def test_different_values_are_counted_up_to_the_capacity_and_estimated_beyond() -> None:
    generator = np.random.default_rng(5)
    assert sketch_of([float(index % CAPACITY) for index in range(3 * CAPACITY)]).distinct == CAPACITY
    many = generator.normal(size=60_000)
    halves = [NumericSketch.of(pl.Series(half)) for half in (many[:40_000], many[20_000:])]
    assert halves[0].distinct == pytest.approx(40_000, rel=0.12)
    assert NumericSketch.merged(halves).distinct == pytest.approx(60_000, rel=0.12)
    few = sketch_of(many[:100].tolist())
    assert NumericSketch.merged([halves[0], few]).distinct == halves[0].distinct  # they are in it already


def test_what_is_kept_does_not_depend_on_the_machine_or_a_library() -> None:
    """The bytes of a sketch are compared with those of other processes and later versions."""
    assert number_hashes(np.array([0.0])).tolist() == [
        0xE220A8397B1DCDAF
    ]  # SplitMix64's first number of seed 0
    values = np.array([1.0, -1.5, 1e300, 5e-324])
    assert number_hashes(values).tolist() == sorted(
        split_mix(bits) for bits in values.view(np.uint64).tolist()
    )


def split_mix(bits: int) -> int:
    mask = 2**64 - 1
    bits = (bits + 0x9E3779B97F4A7C15) & mask
    bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) & mask
    bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & mask
    return bits ^ bits >> 31


@pytest.mark.parametrize("values", [[], [None, None], [float("nan")] * 3, [5.0], [5.0] * 4, [0.0, -0.0]])
def test_what_there_is_none_of_makes_a_sketch(values: list[float | None]) -> None:
    sketch = sketch_of(values)
    assert sketch.rows == len(values)
    assert sketch.sample.size == sketch.moments.count
    assert sketch.sample.values.size == len({v for v in values if v is not None and np.isfinite(v)})
    same(NumericSketch.merged([sketch, NumericSketch.of_nulls(2)]), sketch_of([*values, None, None]))


def test_whole_numbers_and_booleans_are_numbers() -> None:
    assert NumericSketch.of(pl.Series([1, 2, None])).moments.mean == 1.5
    assert NumericSketch.of(pl.Series([True, False, True])).zeros == 1


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], share: float) -> None:
    found = Sample.of(values).quantiles(np.array([share]))[0]
    assert found == pytest.approx(np.quantile(values, share), abs=1e-9)


def test_compressing_at_once_is_compressing() -> None:
    generator = np.random.default_rng(9)
    for values in (generator.normal(size=9_000), generator.normal(size=20_000).round(3)):
        ordered = np.sort(values) + 0.0
        at_once, by_steps = (
            Sample.compressed_of_sorted(ordered, 1_000),
            Sample.of_sorted(ordered).compressed(1_000),
        )
        assert at_once.values.tolist() == by_steps.values.tolist()
        assert at_once.weights.tolist() == by_steps.weights.tolist()
        assert at_once.rank_error == by_steps.rank_error


def test_what_fits_is_kept_whole() -> None:
    numbers = np.arange(5_000, dtype=np.float64)
    sample = Sample.compressed_of_sorted(numbers, 32_768)
    assert np.array_equal(sample.values, numbers)
    assert (sample.weights == 1).all()
    assert sample.rank_error == 0


@pytest.mark.parametrize("data", [b"", b"no sketch", b'{"format": "numeric-0-1"}\n', b'{"format": 3'])
def test_what_is_no_sketch_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid, match="numeric-1-4096"):
        NumericSketch.from_bytes(data)


def test_damaged_bytes_are_refused() -> None:
    data = sketch_of([1.0, 2.0, 3.0]).to_bytes()
    with pytest.raises(Invalid, match="sketch"):
        NumericSketch.from_bytes(data[:-6])
