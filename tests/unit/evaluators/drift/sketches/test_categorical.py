from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.drift.sketches.categorical import CAPACITY, CategoricalSketch
from evaluators.drift.sketches.kinds import categorical_drift, categorical_profile
from evaluators.drift.sketches.sketch import Sketch

texts = st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=60)


def sketch_of(values: list[str | None]) -> CategoricalSketch:
    return CategoricalSketch.of(pl.Series(values, dtype=pl.String))


@given(texts, texts, texts)
def test_parts_merge_into_the_sketch_of_the_whole_in_any_order(
    a: list[str | None], b: list[str | None], c: list[str | None]
) -> None:
    whole = sketch_of(a + b + c)
    parts = [sketch_of(part) for part in (a, b, c)]
    assert CategoricalSketch.merged(parts) == whole
    assert CategoricalSketch.merged(parts[::-1]) == whole
    assert CategoricalSketch.merged([CategoricalSketch.merged(parts[:2]), parts[2]]) == whole
    assert list(whole.counts) == list(CategoricalSketch.merged(parts).counts)
    assert CategoricalSketch.from_bytes(whole.to_bytes()) == whole


def test_numbers_and_booleans_go_by_their_text() -> None:
    assert CategoricalSketch.of(pl.Series([200, 200, None, 502])).counts == {"200": 2, "502": 1}
    assert CategoricalSketch.of(pl.Series([True, False, True])).counts == {"true": 2, "false": 1}
    assert CategoricalSketch.of(pl.Series([200])).lengths is None
    assert CategoricalSketch.of(pl.Series(["a", "b"], dtype=pl.Categorical)).counts == {"a": 1, "b": 1}


def zipf(seed: int, rows: int = 60_000) -> list[str]:
    ranks = np.random.default_rng(seed).zipf(1.3, size=rows)
    return [f"item {rank}" for rank in ranks]


def test_counts_are_off_by_no_more_than_the_sketch_says() -> None:
    parts = [zipf(seed, 30_000) for seed in range(4)]
    whole = CategoricalSketch.merged([sketch_of(list(part)) for part in parts])
    true = Counter(item for part in parts for item in part)
    assert len(true) > CAPACITY == len(whole.counts)
    assert 0 < whole.error <= 2 * whole.rows / CAPACITY
    for item, count in true.items():
        known = whole.counts.get(item, 0)
        assert known <= count <= known + whole.error
    for item, count in true.most_common(50):
        assert whole.counts[item] == count  # what is frequent everywhere is counted exactly
    assert whole.distinct == pytest.approx(len(true), rel=0.12)
    assert CategoricalSketch.from_bytes(whole.to_bytes()).to_bytes() == whole.to_bytes()


def test_many_rare_categories_are_no_drift() -> None:
    """Each window keeps others of 50,000 equally rare categories; compared one by one that would be a difference."""
    generator = np.random.default_rng(6)
    now, then = (
        sketch_of([f"user {user}" for user in generator.integers(0, 50_000, size=size)] + ["bot"] * 4_000)
        for size in (40_000, 80_000)
    )
    drift = categorical_drift(now, then, 20)
    assert drift["tv_distance"] == pytest.approx(4_000 / 44_000 - 4_000 / 84_000)
    only_rare = [
        sketch_of([f"user {user}" for user in generator.integers(0, 50_000, size=30_000)]) for _ in "ab"
    ]
    assert categorical_drift(*only_rare, 20) == {}


def test_windows_of_one_long_tailed_distribution_are_seldom_told_apart() -> None:
    pvalues = []
    for seed in range(0, 60, 2):
        now, then = sketch_of(list(zipf(seed, 20_000))), sketch_of(list(zipf(seed + 1, 10_000)))
        pvalues.append(categorical_drift(now, then, 20)["chi_squared_test"]["pvalue"])
    assert sum(pvalue <= 0.05 for pvalue in pvalues) <= 5


def test_a_new_frequent_category_among_many_is_found() -> None:
    now, then = sketch_of([*zipf(1, 20_000), *["new"] * 2_000]), sketch_of(list(zipf(2, 20_000)))
    drift = categorical_drift(now, then, 20)
    assert drift["chi_squared_test"]["pvalue"] < 1e-30
    assert drift["l_infinity_distance"] >= 2_000 / 22_000 * 0.9


def test_long_categories_go_by_their_beginning_and_a_hash() -> None:
    common = "x" * 190
    sketch = sketch_of([common + "a" * 50, common + "b" * 50, common + "b" * 50])
    assert sorted(sketch.counts.values()) == [1, 2]
    assert all(len(item) < 210 for item in sketch.counts)
    assert categorical_profile(sketch)["max_length"] == 240
    assert CategoricalSketch.merged([sketch, sketch]).distinct == 2


def test_what_there_is_none_of_makes_a_sketch() -> None:
    for values in ([], [None, None]):
        sketch = sketch_of(list(values))
        assert (sketch.rows, sketch.nulls, sketch.distinct) == (len(values), len(values), 0)
        assert categorical_profile(sketch)["frequent_items"] == []
    merged = CategoricalSketch.merged([sketch_of(["a"]), CategoricalSketch.of_nulls(3)])
    assert merged == sketch_of(["a", None, None, None])


def test_both_sketches_are_what_a_sketch_is() -> None:
    made: type[Sketch] = CategoricalSketch
    assert made.of_nulls(4).nulls == 4
