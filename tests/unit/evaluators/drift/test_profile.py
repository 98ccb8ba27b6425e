from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from collector.catalog import PROFILE_SCHEMA
from evaluators.drift.profile import column_profile, profile_rows
from evaluators.drift.sketches.kinds import STANDARD_KINDS
from evaluators.drift.sketches.numeric import NumericSketch
from evaluators.drift.slices import BY_VARIANT
from evaluators.drift.sources import Kind
from evaluators.drift.window_data import observe
from evaluators.drift.window_sketches import WindowSketches
from evaluators.drift.windows import Window
from tests.unit.evaluators.inference_rows import endpoint_tables, payload_rows, score_rows

WINDOW = Window(datetime(2026, 3, 4, 10, tzinfo=UTC), datetime(2026, 3, 4, 11, tzinfo=UTC))


def profiled(
    tmp_path: Path, *payloads: pl.DataFrame, scores: list[pl.DataFrame] | None = None
) -> pl.DataFrame:
    tables = endpoint_tables(tmp_path)
    for payload in payloads:
        tables.payload.append(payload)
    for score in scores or []:
        tables.scores.append(score)
    sketches = WindowSketches.of(observe(tables, WINDOW, slicing=BY_VARIANT), BY_VARIANT, STANDARD_KINDS)
    return profile_rows(sketches, window=WINDOW, granularity="1 hour", payload_version=7)


def row(rows: pl.DataFrame, column: str, variant: str | None = None) -> dict[str, Any]:
    found = rows.filter(
        (pl.col("column_name") == column) & pl.col("slice_value").eq_missing(pl.lit(variant))
    ).to_dicts()
    assert len(found) == 1
    return found[0]


def test_numbers_are_profiled_as_numpy_has_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    durations = generator.integers(0, 900, size=500)
    rows = profiled(tmp_path, payload_rows(500, WINDOW.start, execution_duration_ms=durations.tolist()))
    assert rows.schema == pl.DataFrame(PROFILE_SCHEMA.empty_table()).schema
    profile = row(rows, "execution_duration_ms")
    assert profile["window"] == {"start": WINDOW.start, "end": WINDOW.end}
    assert (profile["granularity"], profile["log_type"]) == ("1 hour", "INPUT")
    assert profile["logging_table_commit_version"] == 7
    assert (profile["count"], profile["num_nulls"], profile["data_type"]) == (500, 0, "bigint")
    assert profile["avg"] == pytest.approx(durations.mean())
    assert profile["stddev"] == pytest.approx(durations.std(ddof=1))
    assert (profile["min"], profile["max"]) == (durations.min(), durations.max())
    assert profile["median"] == pytest.approx(np.median(durations))
    assert profile["quantiles"] == pytest.approx(np.percentile(durations, range(101)).tolist())
    assert profile["num_zeros"] == int((durations == 0).sum())
    assert profile["distinct_count"] == len(set(durations.tolist()))
    assert profile["percent_distinct"] == pytest.approx(len(set(durations.tolist())) / 5)
    assert profile["frequent_items"] is None


def test_nulls_and_what_is_not_finite_are_counted_and_left_out_of_the_mean() -> None:
    series = pl.Series("score:x", [1.0, None, float("nan"), 0.0, float("inf"), 5.0])
    profile = column_profile(NumericSketch.of(series), STANDARD_KINDS[Kind.NUMERIC])
    assert (profile["count"], profile["num_nulls"], profile["num_nan"], profile["num_zeros"]) == (5, 1, 2, 1)
    assert profile["avg"] == 2.0
    assert profile["percent_null"] == pytest.approx(100 / 6)
    assert profile["percent_nan"] == pytest.approx(40)


def test_categories_have_their_frequent_items_most_frequent_first(tmp_path: Path) -> None:
    reasons = ["stop"] * 5 + ["length"] * 3 + [None] * 2
    rows = profiled(tmp_path, payload_rows(10, WINDOW.start, finish_reason=reasons))
    profile = row(rows, "finish_reason")
    assert profile["frequent_items"] == [{"item": "stop", "count": 5}, {"item": "length", "count": 3}]
    assert (profile["count"], profile["num_nulls"], profile["distinct_count"]) == (8, 2, 2)
    assert (profile["min_length"], profile["max_length"], profile["avg_length"]) == (4, 6, 4.75)
    assert profile["avg"] is None
    assert profile["quantiles"] is None
    assert row(rows, "status_code")["frequent_items"] == [{"item": "200", "count": 10}]


def test_a_column_without_a_value_has_counts_and_no_statistics(tmp_path: Path) -> None:
    rows = profiled(tmp_path, payload_rows(4, WINDOW.start))
    profile = row(rows, "time_to_first_token_ms")
    assert (profile["count"], profile["num_nulls"], profile["distinct_count"]) == (0, 4, 0)
    for statistic in (
        "avg",
        "min",
        "max",
        "median",
        "stddev",
        "quantiles",
        "percent_distinct",
        "percent_zeros",
    ):
        assert profile[statistic] is None, statistic
    assert row(rows, "error_type")["frequent_items"] == []


def test_lengths_are_in_characters(tmp_path: Path) -> None:
    rows = profiled(
        tmp_path, payload_rows(2, WINDOW.start, prompt_text=["né", "naïve"], response_text=["é", None])
    )
    assert row(rows, "prompt_length")["avg"] == 3.5
    assert (row(rows, "response_length")["avg"], row(rows, "response_length")["num_nulls"]) == (1, 1)


def test_one_value_has_no_standard_deviation(tmp_path: Path) -> None:
    profile = row(profiled(tmp_path, payload_rows(1, WINDOW.start)), "execution_duration_ms")
    assert profile["stddev"] is None
    assert profile["avg"] == 100


def test_the_whole_table_counts_rows_and_names_the_filled_columns(tmp_path: Path) -> None:
    profile = row(profiled(tmp_path, payload_rows(6, WINDOW.start)), ":table")
    assert profile["count"] == 6
    assert "status_code" in profile["non_null_columns"]
    assert "error_type" not in profile["non_null_columns"]


def test_variants_are_slices_and_shadow_traffic_is_in_none(tmp_path: Path) -> None:
    rows = profiled(
        tmp_path,
        payload_rows(4, WINDOW.start, variant="control"),
        payload_rows(2, WINDOW.start, variant="hot"),
        payload_rows(9, WINDOW.start, variant="ghost", is_shadow=True),
    )
    assert row(rows, ":table")["count"] == 6
    assert row(rows, ":table", "control")["count"] == 4
    assert row(rows, "status_code", "hot")["count"] == 2
    assert row(rows, ":table", "hot")["slice_key"] == "variant"
    assert "ghost" not in rows["slice_value"].to_list()


def test_only_the_records_of_the_window_are_in_it(tmp_path: Path) -> None:
    rows = profiled(
        tmp_path,
        payload_rows(3, WINDOW.start - timedelta(seconds=1), every=timedelta(milliseconds=1)),
        payload_rows(2, WINDOW.start),
        payload_rows(4, WINDOW.end),
    )
    assert row(rows, ":table")["count"] == 2


def test_scores_are_joined_to_their_records(tmp_path: Path) -> None:
    payload = payload_rows(4, WINDOW.start, variant=["control", "control", "hot", "hot"])
    rows = profiled(
        tmp_path,
        payload,
        scores=[
            score_rows(payload, "perplexity", [10, 20, 30, None]),
            score_rows(payload.head(1), "toxicity", [0.5], target="request"),
        ],
    )
    assert row(rows, "score:perplexity")["avg"] == 20
    assert row(rows, "score:perplexity")["num_nulls"] == 1
    assert row(rows, "score:perplexity", "hot")["avg"] == 30
    assert row(rows, "score:toxicity@request")["count"] == 1


def test_an_empty_window_is_one_row(tmp_path: Path) -> None:
    rows = profiled(tmp_path, payload_rows(3, WINDOW.end))
    assert rows["column_name"].to_list() == [":table"]
    assert rows["count"].to_list() == [0]
