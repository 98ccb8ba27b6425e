from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake
from scipy import stats

from collector.catalog import EndpointTables
from evaluators.drift import baseline_table
from evaluators.drift.baseline_table import BaselineTable
from evaluators.drift.references import FixedTable
from evaluators.drift.runner import DriftRunner
from evaluators.drift.sketches.kinds import STANDARD_KINDS
from evaluators.drift.slices import UNSLICED
from evaluators.drift.window_data import observe
from evaluators.drift.window_sketches import WindowSketches
from evaluators.drift.windows import Granularity, Window
from evaluators.runs.run_history import RunHistory
from servelens.clock import ManualClock
from servelens.errors import Invalid, Unavailable
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
WINDOW = Window(TEN, TEN + timedelta(hours=1))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(TEN + timedelta(hours=2))


@pytest.fixture
def current(tables: EndpointTables) -> WindowSketches:
    durations = np.random.default_rng(1).integers(50, 300, size=200).tolist()
    tables.payload.append(payload_rows(200, TEN, execution_duration_ms=durations))
    return WindowSketches.of(observe(tables, WINDOW), UNSLICED, STANDARD_KINDS)


def training_set(rows: int = 500) -> pl.DataFrame:
    generator = np.random.default_rng(2)
    return pl.DataFrame(
        {
            "execution_duration_ms": generator.integers(0, 300, size=rows),
            "status_code": [200] * (rows - 50) + [502] * 50,
            "finish_reason": ["stop"] * rows,
            "price": generator.random(rows),
        }
    )


def write_delta(frame: pl.DataFrame, path: Path) -> None:
    write_deltalake(str(path), frame.to_arrow())


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("training.parquet", pl.DataFrame.write_parquet),
        ("training.csv", pl.DataFrame.write_csv),
        ("training", write_delta),
    ],
)
def test_a_data_set_of_any_form_is_a_reference(
    tables: EndpointTables,
    history: RunHistory,
    clock: ManualClock,
    current: WindowSketches,
    tmp_path: Path,
    name: str,
    write: Callable[[pl.DataFrame, Path], object],
) -> None:
    training = training_set()
    write(training, tmp_path / name)
    reference = FixedTable(BaselineTable(str(tmp_path / name)))
    DriftRunner(
        tables, ENDPOINT, history, clock, granularity=Granularity.parse("1 hour"), reference=reference
    ).run()
    rows = tables.drift.scan().collect()
    assert set(rows["column_name"]) == {":table", "execution_duration_ms", "status_code", "finish_reason"}
    assert rows.select("window_cmp", "drift_type", "reference").unique().rows() == [
        (None, "BASELINE", f"table {tmp_path / name}")
    ]
    durations = rows.filter(pl.col("column_name") == "execution_duration_ms").to_dicts()[0]
    observed = tables.payload.scan().collect()["execution_duration_ms"].to_numpy()
    expected = stats.ks_2samp(observed, training["execution_duration_ms"].to_numpy(), method="exact")
    assert durations["ks_test"]["pvalue"] == pytest.approx(expected.pvalue)
    assert durations["count_delta"] == 200 - 500
    codes = rows.filter(pl.col("column_name") == "status_code").to_dicts()[0]
    assert codes["tv_distance"] == pytest.approx(0.1)


def test_it_is_summed_up_again_when_it_has_changed(
    current: WindowSketches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline_table, "_ROWS_AT_ONCE", 100)  # several pieces
    path = tmp_path / "training.parquet"
    training_set().write_parquet(path)
    table = BaselineTable(str(path))
    first, again = (table.pairs(current, STANDARD_KINDS)[0].reference for _ in range(2))
    assert first.rows == 500
    assert again.columns["status_code"].sketch is first.columns["status_code"].sketch
    training_set(rows=700).write_parquet(path)
    changed = table.pairs(current, STANDARD_KINDS)[0].reference
    assert (changed.rows, changed.columns["status_code"].sketch.rows) == (700, 700)


def test_an_empty_window_asks_for_nothing(tables: EndpointTables, tmp_path: Path) -> None:
    empty = WindowSketches.of(observe(tables, WINDOW), UNSLICED, STANDARD_KINDS)
    assert BaselineTable(str(tmp_path / "missing.parquet")).pairs(empty, STANDARD_KINDS) == []


def test_what_cannot_be_compared_is_an_error(current: WindowSketches, tmp_path: Path) -> None:
    def pairs(name: str) -> None:
        BaselineTable(str(tmp_path / name)).pairs(current, STANDARD_KINDS)

    with pytest.raises(Unavailable, match="baseline_table"):
        pairs("missing.parquet")
    with pytest.raises(Unavailable, match="baseline_table"):
        pairs("missing")
    (tmp_path / "broken.parquet").write_text("no parquet")
    with pytest.raises(Unavailable, match="baseline_table"):
        pairs("broken.parquet")
    training_set().select("price").write_parquet(tmp_path / "other.parquet")
    with pytest.raises(Invalid, match="none of the columns"):
        pairs("other.parquet")
    training_set().clear().write_parquet(tmp_path / "empty.parquet")
    with pytest.raises(Invalid, match="no rows"):
        pairs("empty.parquet")
    pl.DataFrame({"execution_duration_ms": ["fast"]}).write_parquet(tmp_path / "words.parquet")
    with pytest.raises(Invalid, match="cannot be compared"):
        pairs("words.parquet")
