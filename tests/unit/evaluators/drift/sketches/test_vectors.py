from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluators.drift.sketches.vectors import SAMPLE, VECTOR, VectorSketch, keys, unit_vectors
from servelens.errors import Invalid

DIMENSIONS = 12


def column(rows: int, *, first: int = 0, model: str = "minilm@1", dimensions: int = DIMENSIONS) -> pl.Series:
    """Vectors of the requests ``first`` on; a request's is the same whenever it is asked for."""
    vectors = [np.random.default_rng(number).normal(size=dimensions) for number in range(first, first + rows)]
    ids = pl.Series([f"id-{number:06d}" for number in range(first, first + rows)], dtype=pl.String)
    return pl.DataFrame(
        {
            "key": keys(ids),
            "model": pl.Series([model] * rows, dtype=pl.String),
            "vector": pl.Series([vector.tolist() for vector in vectors], dtype=pl.List(pl.Float32)),
        }
    ).select(pl.struct("key", "model", "vector").cast(VECTOR).alias("prompt_embedding"))["prompt_embedding"]


def equal(one: VectorSketch, other: VectorSketch) -> bool:
    return (
        one.rows == other.rows
        and one.parts.keys() == other.parts.keys()
        and all(
            part.count == other.parts[name].count
            and np.allclose(part.total, other.parts[name].total, atol=1e-6)
            and np.array_equal(part.tags, other.parts[name].tags)
            and np.array_equal(part.sample, other.parts[name].sample)
            for name, part in one.parts.items()
        )
    )


def test_the_centroid_is_over_all_rows_and_the_sample_is_of_unit_vectors() -> None:
    series = column(SAMPLE + 500)
    sketch = VectorSketch.of(series)
    part = sketch.parts["minilm@1", DIMENSIONS]
    units, _ = unit_vectors(np.array(series.struct.field("vector").to_list()))
    assert (sketch.rows, sketch.count, sketch.nulls) == (SAMPLE + 500, SAMPLE + 500, 0)
    assert part.total == pytest.approx(units.sum(axis=0), abs=1e-3)
    assert part.sample.shape == (SAMPLE, DIMENSIONS)
    assert np.linalg.norm(part.sample.astype(np.float64), axis=1) == pytest.approx(np.ones(SAMPLE), abs=1e-3)
    assert sketch.parts.keys() == {("minilm@1", DIMENSIONS)}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_merging_gives_what_all_rows_together_would_have_given(cuts: list[int], chance: object) -> None:
    bounds = np.cumsum([0, *cuts])
    parts = [VectorSketch.of(column(int(end - start), first=int(start))) for start, end in pairwise(bounds)]
    whole = VectorSketch.of(column(int(bounds[-1])))
    chance.shuffle(parts)  # type: ignore[attr-defined]
    assert equal(VectorSketch.merged(parts), whole)


def test_merging_large_windows_in_any_way_gives_the_sample_of_the_whole() -> None:
    parts = [VectorSketch.of(column(700, first=700 * number)) for number in range(4)]
    whole = VectorSketch.of(column(2_800))
    assert equal(VectorSketch.merged(parts), whole)
    assert equal(VectorSketch.merged([VectorSketch.merged(parts[2:]), VectorSketch.merged(parts[:2])]), whole)


def test_the_sample_is_uniform_over_the_windows_that_were_merged() -> None:
    parts = [VectorSketch.of(column(rows, first=10_000 * rows)) for rows in (500, 1_500, 2_000)]
    merged = VectorSketch.merged(parts).parts["minilm@1", DIMENSIONS]
    drawn = [int(np.isin(merged.tags, part.parts["minilm@1", DIMENSIONS].tags).sum()) for part in parts]
    assert sum(drawn) == SAMPLE
    expected = np.array([500, 1_500, 2_000]) / 4_000 * SAMPLE
    assert stats.chisquare(drawn, expected).pvalue > 0.001


def test_models_and_lengths_have_parts_of_their_own() -> None:
    merged = VectorSketch.merged(
        [
            VectorSketch.of(column(30)),
            VectorSketch.of(column(20, first=30, model="minilm@2")),
            VectorSketch.of(column(10, first=50, dimensions=5)),
            VectorSketch.of_nulls(7),
        ]
    )
    assert {name: part.count for name, part in merged.parts.items()} == {
        ("minilm@1", 12): 30,
        ("minilm@2", 12): 20,
        ("minilm@1", 5): 10,
    }
    assert (merged.rows, merged.nulls) == (67, 7)


def test_what_is_no_vector_is_null() -> None:
    values = [[3.0, 4.0], None, [float("nan"), 1.0], [0.0, 0.0], [None, 1.0], [], [float("inf"), 1.0]]
    for series in (
        pl.Series(values, dtype=pl.List(pl.Float32)),
        pl.Series(values, dtype=pl.List(pl.Float64)),
    ):
        sketch = VectorSketch.of(series)
        assert (sketch.rows, sketch.nulls) == (7, 6)
        assert sketch.parts["", 2].total == pytest.approx([0.6, 0.8])
    arrays = VectorSketch.of(pl.Series([[3.0, 4.0], None], dtype=pl.Array(pl.Float32, 2)))
    assert (arrays.rows, arrays.nulls) == (2, 1)
    joined = pl.DataFrame({"n": [0, 1, 2]}).join(
        pl.DataFrame({"n": [1]}).with_columns(column(1)), on="n", how="left"
    )
    assert VectorSketch.of(joined["prompt_embedding"]).nulls == 2
    assert VectorSketch.of(pl.Series([None, None])).nulls == 2
    assert VectorSketch.of(column(0)).rows == 0


def test_vectors_without_ids_are_sampled_the_same_way_every_time_and_repeats_count() -> None:
    vectors = pl.Series([[1.0, 0.0]] * 1_500 + [[0.0, 1.0]] * 1_500, dtype=pl.List(pl.Float32))
    one, other = VectorSketch.of(vectors), VectorSketch.of(vectors)
    assert equal(one, other)
    share = one.parts["", 2].sample[:, 0].astype(np.float64).mean()
    assert share == pytest.approx(0.5, abs=0.06)


def test_bytes_come_back_as_the_same_sketch() -> None:
    sketch = VectorSketch.merged(
        [VectorSketch.of(column(SAMPLE + 20)), VectorSketch.of(column(5, model="other@1", dimensions=3))]
    )
    assert equal(VectorSketch.from_bytes(sketch.to_bytes()), sketch)
    assert equal(VectorSketch.from_bytes(VectorSketch.of_nulls(3).to_bytes()), VectorSketch.of_nulls(3))
    assert len(sketch.to_bytes()) < SAMPLE * (2 * DIMENSIONS + 8) * 1.1


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "format"])
def test_other_bytes_are_refused(damage: str) -> None:
    data = VectorSketch.of(column(5)).to_bytes()
    broken = {
        "cut": data[:-3],
        "other": b"\x01\x02",
        "empty": b"",
        "format": data.replace(b"vector-1-", b"vector-9-"),
    }[damage]
    with pytest.raises(Invalid, match="sketch of vectors"):
        VectorSketch.from_bytes(broken)


def test_a_requests_tag_is_the_same_in_every_process() -> None:
    program = """
        import polars as pl
        from evaluators.drift.sketches.vectors import keys
        print(keys(pl.Series(["id-000001", None, "né"])).to_list())
    """
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(line.strip() for line in program.splitlines())],
        cwd=Path(__file__).parents[5],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(keys(pl.Series(["id-000001", None, "né"])).to_list())
