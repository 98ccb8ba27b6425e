from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from collector.catalog import DRIFT_SCHEMA, EndpointTables
from evaluators.drift.rows import Compared, DriftType, against_slice, column_drift, drift_rows, same_slices
from evaluators.drift.sketches.kinds import STANDARD_KINDS
from evaluators.drift.sketches.numeric import NumericSketch
from evaluators.drift.slices import BY_VARIANT, Slice
from evaluators.drift.sources import Kind
from evaluators.drift.window_data import observe
from evaluators.drift.window_sketches import WindowSketches
from evaluators.drift.windows import Granularity, Window
from tests.unit.evaluators.inference_rows import endpoint_tables, payload_rows, score_rows

HOUR = Granularity.parse("1 hour")
CURRENT = HOUR.containing(datetime(2026, 3, 4, 11, 30, tzinfo=UTC))
REFERENCE = HOUR.before(CURRENT)
COMPARED = Compared(CURRENT, REFERENCE, "1 hour", DriftType.CONSECUTIVE, "previous")
STATISTICS = (
    "js_distance",
    "ks_test",
    "wasserstein_distance",
    "population_stability_index",
    "chi_squared_test",
    "tv_distance",
    "l_infinity_distance",
)


def compared(
    tmp_path: Path, *payloads: pl.DataFrame, scores: list[pl.DataFrame] | None = None, min_rows: int = 20
) -> pl.DataFrame:
    tables = endpoint_tables(tmp_path)
    for payload in payloads:
        tables.payload.append(payload)
    for score in scores or []:
        tables.scores.append(score)
    pairs = same_slices(sketched(tables, CURRENT), sketched(tables, REFERENCE))
    return drift_rows(pairs, COMPARED, min_rows=min_rows)


def sketched(tables: EndpointTables, window: Window) -> WindowSketches:
    return WindowSketches.of(observe(tables, window, slicing=BY_VARIANT), BY_VARIANT, STANDARD_KINDS)


def row(rows: pl.DataFrame, column: str, variant: str | None = None) -> dict[str, Any]:
    found = rows.filter(
        (pl.col("column_name") == column) & pl.col("slice_value").eq_missing(pl.lit(variant))
    ).to_dicts()
    assert len(found) == 1
    return found[0]


def test_numbers_get_the_distances_of_their_two_samples(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    now, then = generator.integers(50, 400, size=300), generator.integers(0, 300, size=200)
    rows = compared(
        tmp_path,
        payload_rows(300, CURRENT.start, execution_duration_ms=now.tolist()),
        payload_rows(200, REFERENCE.start, execution_duration_ms=then.tolist()),
    )
    assert rows.schema == pl.DataFrame(DRIFT_SCHEMA.empty_table()).schema
    drift = row(rows, "execution_duration_ms")
    expected = stats.ks_2samp(now, then, method="exact")
    assert drift["ks_test"] == pytest.approx({"statistic": expected.statistic, "pvalue": expected.pvalue})
    assert drift["wasserstein_distance"] == pytest.approx(stats.wasserstein_distance(now, then))
    assert drift["avg_delta"] == pytest.approx(now.mean() - then.mean())
    assert drift["count_delta"] == 100
    assert drift["population_stability_index"] > 0.1
    assert 0 < drift["js_distance"] < 1
    assert drift["chi_squared_test"] is None
    assert drift["tv_distance"] is None
    assert drift["drift_type"] == "CONSECUTIVE"
    assert drift["reference"] == "previous"
    assert drift["window_cmp"] == {"start": REFERENCE.start, "end": REFERENCE.end}


def test_categories_get_the_distances_of_their_two_tallies(tmp_path: Path) -> None:
    rows = compared(
        tmp_path,
        payload_rows(100, CURRENT.start, status_code=[200] * 80 + [502] * 20),
        payload_rows(50, REFERENCE.start),
    )
    drift = row(rows, "status_code")
    expected = stats.chi2_contingency([[80, 20], [50, 0]], correction=False)
    assert drift["chi_squared_test"]["pvalue"] == pytest.approx(expected.pvalue)
    assert drift["chi_squared_test"]["statistic"] == pytest.approx(expected.statistic)
    assert (drift["tv_distance"], drift["l_infinity_distance"]) == pytest.approx((0.2, 0.2))
    assert drift["js_distance"] > 0
    assert drift["population_stability_index"] > 0
    assert drift["ks_test"] is None
    assert drift["avg_delta"] is None


def test_errors_where_there_were_none_are_seen_in_the_error_type(tmp_path: Path) -> None:
    rows = compared(
        tmp_path,
        payload_rows(100, CURRENT.start, error_type=["upstream_timeout"] * 15 + [None] * 85),
        payload_rows(100, REFERENCE.start),
    )
    drift = row(rows, "error_type")
    assert drift["tv_distance"] == pytest.approx(0.15)
    assert drift["chi_squared_test"]["pvalue"] < 0.001
    assert drift["percent_null_delta"] == pytest.approx(-15)
    assert row(rows, ":table")["non_null_columns_delta"] == {"added": 1, "missing": 0}


def test_three_rows_are_too_few_for_any_statistic(tmp_path: Path) -> None:
    rows = compared(tmp_path, payload_rows(3, CURRENT.start), payload_rows(500, REFERENCE.start))
    for column in ("execution_duration_ms", "status_code", "finish_reason"):
        drift = row(rows, column)
        assert [drift[name] for name in STATISTICS] == [None] * len(STATISTICS)
        assert drift["count_delta"] == -497


def test_the_least_number_of_rows_is_the_callers(tmp_path: Path) -> None:
    rows = compared(tmp_path, payload_rows(3, CURRENT.start), payload_rows(3, REFERENCE.start), min_rows=3)
    assert row(rows, "execution_duration_ms")["ks_test"] == {"statistic": 0, "pvalue": 1}


def test_constant_columns_of_one_class_are_no_distance_apart(tmp_path: Path) -> None:
    rows = compared(tmp_path, payload_rows(40, CURRENT.start), payload_rows(60, REFERENCE.start))
    drift = row(rows, "execution_duration_ms")
    assert (drift["ks_test"]["pvalue"], drift["wasserstein_distance"], drift["js_distance"]) == (1, 0, 0)
    drift = row(rows, "model")
    assert drift["chi_squared_test"] == {"statistic": 0, "pvalue": 1}
    assert (drift["tv_distance"], drift["l_infinity_distance"], drift["js_distance"]) == (0, 0, 0)
    assert drift["population_stability_index"] == 0


def test_a_column_that_is_null_throughout_has_no_statistic(tmp_path: Path) -> None:
    rows = compared(tmp_path, payload_rows(40, CURRENT.start), payload_rows(60, REFERENCE.start))
    for column in ("error_type", "input_tokens"):
        drift = row(rows, column)
        assert [drift[name] for name in STATISTICS] == [None] * len(STATISTICS)
        assert drift["percent_null_delta"] == 0


@pytest.mark.parametrize("side", ["current", "reference"])
def test_an_empty_window_has_a_row_for_the_table_only(tmp_path: Path, side: str) -> None:
    start = REFERENCE.start if side == "current" else CURRENT.start
    rows = compared(tmp_path, payload_rows(30, start, variant="control"))
    assert rows["column_name"].to_list() == [":table", ":table"]
    assert rows["slice_value"].to_list() == [None, "control"]
    assert rows["count_delta"].to_list() == ([-30, -30] if side == "current" else [30, 30])


def test_two_empty_windows_have_no_row(tmp_path: Path) -> None:
    rows = compared(tmp_path, payload_rows(5, CURRENT.end))
    assert rows.is_empty()
    assert rows.schema == pl.DataFrame(DRIFT_SCHEMA.empty_table()).schema


def test_each_variant_is_compared_with_itself(tmp_path: Path) -> None:
    """The variants swap their latencies: nothing changes over all, everything within each."""
    rows = compared(
        tmp_path,
        payload_rows(50, CURRENT.start, variant="control", execution_duration_ms=900),
        payload_rows(50, CURRENT.start, variant="hot", execution_duration_ms=100),
        payload_rows(50, REFERENCE.start, variant="control", execution_duration_ms=100),
        payload_rows(50, REFERENCE.start, variant="hot", execution_duration_ms=900),
    )
    assert row(rows, "execution_duration_ms")["wasserstein_distance"] == 0
    assert row(rows, "execution_duration_ms", "control")["avg_delta"] == 800
    assert row(rows, "execution_duration_ms", "hot")["ks_test"]["statistic"] == 1


def test_a_score_that_only_one_window_has_is_not_compared(tmp_path: Path) -> None:
    now, then = payload_rows(40, CURRENT.start), payload_rows(40, REFERENCE.start)
    rows = compared(tmp_path, now, then, scores=[score_rows(now, "perplexity", [12.0] * 40)])
    drift = row(rows, "score:perplexity")
    assert drift["ks_test"] is None
    assert (drift["count_delta"], drift["percent_null_delta"], drift["avg_delta"]) == (40, -100, None)


def test_scores_are_compared_like_any_number(tmp_path: Path) -> None:
    now, then = payload_rows(40, CURRENT.start), payload_rows(40, REFERENCE.start)
    rows = compared(
        tmp_path,
        now,
        then,
        scores=[
            score_rows(now, "perplexity", [100.0 + i for i in range(40)]),
            score_rows(then, "perplexity", [10.0 + i for i in range(40)]),
        ],
    )
    assert row(rows, "score:perplexity")["wasserstein_distance"] == pytest.approx(90)
    assert row(rows, "score:perplexity")["ks_test"]["statistic"] == 1


def test_values_that_are_not_finite_are_left_out() -> None:
    now, then = (
        NumericSketch.of(pl.Series(values)) for values in ([1.0, float("nan"), float("inf")] * 20, [1.0] * 60)
    )
    drift = column_drift(now, then, STANDARD_KINDS[Kind.NUMERIC])
    assert drift["ks_test"] == {"statistic": 0, "pvalue": 1}


def test_other_variants_are_compared_with_one_in_the_same_window(tmp_path: Path) -> None:
    tables = endpoint_tables(tmp_path)
    for variant, duration in (("champion", 100), ("hot", 300), ("cold", 100)):
        tables.payload.append(
            payload_rows(40, CURRENT.start, variant=variant, execution_duration_ms=duration)
        )
    pairs = against_slice(sketched(tables, CURRENT), Slice("variant", "champion"))
    rows = drift_rows(pairs, Compared(CURRENT, CURRENT, "1 hour", DriftType.BASELINE, "variant champion"))
    assert rows["slice_value"].unique().sort().to_list() == ["cold", "hot"]
    assert row(rows, "execution_duration_ms", "hot")["avg_delta"] == 200
    assert row(rows, "execution_duration_ms", "cold")["ks_test"]["statistic"] == 0


def test_without_the_other_variant_there_is_nothing_to_compare(tmp_path: Path) -> None:
    tables = endpoint_tables(tmp_path)
    tables.payload.append(payload_rows(40, CURRENT.start))
    pairs = against_slice(sketched(tables, CURRENT), Slice("variant", "champion"))
    assert drift_rows(pairs, COMPARED).is_empty()
