from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest

from collector.catalog import PROFILE_SCHEMA, EndpointTables
from collector.table import Table
from evaluators.drift.windows import Window
from evaluators.ground_truth.options import read_options
from evaluators.ground_truth.quality_rows import model_quality, quality_rows, read_truths
from evaluators.ground_truth.runner import GroundTruthRunner
from evaluators.runs.run_history import RunHistory
from servelens.clock import ManualClock
from tests.unit.evaluators.ground_truth.feedback_rows import truth_rows
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows

START = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR = Window(START, START + timedelta(hours=1))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=2))


def test_a_window_has_its_quality_overall_and_by_variant(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    answers = ["cat"] * 10 + ["dog"] * 10
    payload = payload_rows(20, START, response_text=answers, variant=["a", "b"] * 10)
    later = payload_rows(12, HOUR.end, response_text="cat")
    tables.payload.append(payload)
    tables.payload.append(later)
    tables.feedback.append(truth_rows(payload, ["cat"] * 20))
    tables.feedback.append(truth_rows(later, ["cow"] * 12))
    unknown = payload_rows(2, START)
    tables.feedback.append(truth_rows(unknown, ["cat"] * 2))
    runner = GroundTruthRunner(tables, ENDPOINT, read_options({}), history, clock)
    runner.run()
    # Corrected afterwards: one of the answers "dog" was right.
    clock.advance(60)
    tables.feedback.append(truth_rows(payload[19:], ["dog"], feedback_time=clock.now()))
    runner.run()

    truths = read_truths(tables.scores, HOUR)
    assert len(truths) == 20
    rows = quality_rows(truths, window=HOUR, granularity="1 hour", version=tables.scores.version())
    assert rows.columns == PROFILE_SCHEMA.names
    assert rows["slice_value"].to_list() == [None, "a", "b"]
    assert rows["accuracy_score"].to_list() == [11 / 20, 5 / 10, 6 / 10]
    assert rows["count"].to_list() == [20, 10, 10]
    tables.profiles.append(rows)
    kept = tables.profiles.scan().filter(pl.col("slice_key").is_null()).collect().row(0, named=True)
    assert kept["recall"]["one_vs_all"] == {"cat": 10 / 19, "dog": 1.0}
    assert kept["confusion_matrix"][:2] == [
        {"prediction": "cat", "label": "cat", "count": 10},
        {"prediction": "dog", "label": "cat", "count": 9},
    ]
    assert kept["accuracy_interval"]["low"] < 0.55 < kept["accuracy_interval"]["high"]
    assert kept["mean_squared_error"] is None


def test_numbers_in_a_window(tables: EndpointTables, history: RunHistory, clock: ManualClock) -> None:
    payload = payload_rows(12, START, response_text=None, response=['{"predictions": [2]}'] * 12)
    tables.payload.append(payload)
    tables.feedback.append(truth_rows(payload, [1.0, 4.0] * 6))
    GroundTruthRunner(tables, ENDPOINT, read_options({}), history, clock).run()
    quality = model_quality(read_truths(tables.scores, HOUR))
    assert quality["mean_average_error"] == 1.5
    assert quality["mean_squared_error"] == 2.5
    assert quality["mean_absolute_percentage_error"] == (1 + 0.5) / 2
    assert "accuracy_score" not in quality


def test_too_few_truths_and_none_at_all(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    assert model_quality(read_truths(tables.scores, HOUR)) == {}
    payload = payload_rows(3, START, variant="a")
    tables.payload.append(payload)
    tables.feedback.append(truth_rows(payload, ["paris"] * 3))
    GroundTruthRunner(tables, ENDPOINT, read_options({}), history, clock).run()
    rows = quality_rows(read_truths(tables.scores, HOUR), window=HOUR, granularity="1 hour", version=0)
    assert rows["count"].to_list() == [3, 3]
    assert rows["accuracy_score"].to_list() == [None, None]


def test_a_table_from_before_gets_the_new_columns(tables: EndpointTables) -> None:
    names = PROFILE_SCHEMA.names[: PROFILE_SCHEMA.names.index("accuracy_score")]
    old = Table(
        tables.profiles.uri, pa.schema([PROFILE_SCHEMA.field(name) for name in names]), partition_by=()
    )
    row = quality_rows(read_truths(tables.scores, HOUR), window=HOUR, granularity="1 hour", version=0)
    old.append(row.select(names))
    tables.profiles.append(row)
    assert tables.profiles.scan().collect().select("accuracy_score", "precision").null_count().row(0) == (
        2,
        2,
    )
