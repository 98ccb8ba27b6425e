from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from collector.catalog import EndpointTables
from evaluators.drift.windows import Granularity
from evaluators.ground_truth.options import read_options
from evaluators.ground_truth.quality_runner import QualityRunner
from evaluators.ground_truth.runner import GroundTruthRunner
from evaluators.runs.run_history import RunHistory
from servelens.clock import ManualClock
from tests.unit.evaluators.ground_truth.feedback_rows import truth_rows
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows

START = datetime(2026, 3, 4, 10, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=2, minutes=30))


def quality(tables: EndpointTables, clock: ManualClock) -> QualityRunner:
    hour = Granularity.parse("1 hour")
    return QualityRunner(tables, "ground_truth", clock, granularity=hour, lag=timedelta(hours=1))


def test_each_closed_window_with_truths_is_written_once(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    first = payload_rows(12, START, response_text="cat")
    third = payload_rows(12, START + timedelta(hours=2), response_text="cat")
    for payload in (first, third):
        tables.payload.append(payload)
        tables.feedback.append(truth_rows(payload, ["cat"] * 9 + ["dog"] * 3))
    GroundTruthRunner(tables, ENDPOINT, read_options({}), history, clock).run()

    runner = quality(tables, clock)
    assert [runner.run(), runner.run()] == [1, 0]
    clock.advance(2 * 3600)
    assert [quality(tables, clock).run(), quality(tables, clock).run()] == [1, 0]

    rows = tables.profiles.scan().filter(pl.col("slice_key").is_null()).collect().sort("window")
    assert [window["start"].hour for window in rows["window"]] == [10, 12]
    assert rows["column_name"].unique().to_list() == ["ground_truth"]
    assert rows["accuracy_score"].to_list() == [0.75, 0.75]


def test_without_a_truth_nothing_is_written(tables: EndpointTables, clock: ManualClock) -> None:
    tables.payload.append(payload_rows(3, START))
    assert quality(tables, clock).run() == 0
    assert not tables.profiles.exists()
