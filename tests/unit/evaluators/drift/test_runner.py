from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from collector.catalog import EndpointTables
from evaluators.drift.references import FixedWindow, OtherVariant, Trailing
from evaluators.drift.report import ReportWriter
from evaluators.drift.runner import DriftRunner
from evaluators.drift.slices import Slicing
from evaluators.drift.verdict import drifted
from evaluators.drift.windows import Granularity, Window
from evaluators.runs.run_history import RunHistory
from servelens.clock import ManualClock
from servelens.errors import Unavailable
from tests.unit.evaluators.inference_rows import ENDPOINT, endpoint_tables, payload_rows, score_rows

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(TEN + timedelta(minutes=30))


def runner_for(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, **options: Any
) -> DriftRunner:
    return DriftRunner(
        tables, ENDPOINT, history, clock, **({"granularity": Granularity.parse("1 hour")} | options)
    )


def counts(table: pl.LazyFrame, count: str) -> list[tuple[int, int]]:
    """Hour of the window and count, from the rows about all records."""
    rows = table.filter((pl.col("column_name") == ":table") & pl.col("slice_key").is_null())
    start = pl.col("window").struct.field("start").dt.hour()
    return rows.select(start.alias("hour"), count).sort("hour").collect().rows()


def test_each_closed_window_is_profiled_and_compared_once(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(5, TEN))
    tables.payload.append(payload_rows(8, TEN + HOUR))
    runner = runner_for(tables, history, clock)
    assert runner.run().windows == ()  # none is closed yet
    clock.advance(3600 * 2)
    summary = runner.run()
    assert [window.start for window in summary.windows] == [TEN, TEN + HOUR]
    assert counts(tables.profiles.scan(), "count") == [(10, 5), (11, 8)]
    assert counts(tables.drift.scan(), "count_delta") == [(10, 5), (11, 3)]
    assert summary.profile_rows == tables.profiles.scan().collect().height
    assert summary.drift_rows == tables.drift.scan().collect().height
    # Again, and by another object, as after a restart.
    assert runner.run().windows == ()
    assert runner_for(tables, history, clock).run().windows == ()
    clock.advance(3600)
    assert [window.start for window in runner.run().windows] == [TEN + 2 * HOUR]
    assert counts(tables.profiles.scan(), "count") == [(10, 5), (11, 8), (12, 0)]
    assert counts(tables.drift.scan(), "count_delta") == [(10, 5), (11, 3), (12, -8)]


def test_a_window_is_left_alone_until_its_records_can_have_arrived(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(5, TEN))
    runner = runner_for(tables, history, clock, lag=timedelta(minutes=5))
    clock.advance(60 * 30 + 299)
    assert runner.run().windows == ()
    clock.advance(1)
    assert [window.start for window in runner.run().windows] == [TEN]


def test_a_run_cut_off_between_the_two_tables_is_completed_by_the_next(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(5, TEN))
    clock.advance(3600)
    runner_for(tables, history, clock).run()
    profiles = tables.profiles.scan().collect()
    # As if the process had died before the second commit.
    tables.payload.append(payload_rows(7, TEN + HOUR))
    clock.advance(3600)
    Path(tables.drift.uri).rename(f"{tables.drift.uri}_lost")
    whole = endpoint_tables(Path(tables.drift.uri).parents[2])
    runner_for(whole, history, clock).run()
    assert counts(whole.profiles.scan(), "count") == [(10, 5), (11, 7)]
    assert counts(whole.drift.scan(), "count_delta") == [(10, 5), (11, 2)]
    assert whole.profiles.scan().collect().height == 2 * profiles.height


def test_windows_before_the_first_record_have_no_rows_and_later_empty_ones_do(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    runner = runner_for(tables, history, clock)
    clock.advance(3600 * 5)
    assert runner.run().windows == ()  # no inference table
    tables.payload.append(payload_rows(5, TEN + HOUR))
    tables.payload.append(payload_rows(5, TEN + 3 * HOUR))
    runner.run()
    assert counts(tables.profiles.scan(), "count") == [(11, 5), (12, 0), (13, 5), (14, 0)]
    assert counts(tables.drift.scan(), "count_delta") == [(11, 5), (12, -5), (13, 5), (14, -5)]


def test_a_run_does_a_bounded_number_of_windows_and_the_next_goes_on(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    for hour in range(5):
        tables.payload.append(payload_rows(hour + 1, TEN + hour * HOUR))
    runner = runner_for(tables, history, clock, max_windows=2)
    clock.advance(3600)
    runner.run()
    clock.advance(3600 * 4)
    for _ in range(3):
        assert len(runner.run().windows) <= 2
    assert counts(tables.profiles.scan(), "count") == [(10, 1), (11, 2), (12, 3), (13, 4), (14, 5)]


def test_granularities_do_not_disturb_each_other(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(30, TEN, every=timedelta(minutes=1)))
    clock.advance(3600)
    for text in ("1 hour", "10 minutes", "1 hour"):
        runner_for(tables, history, clock, granularity=Granularity.parse(text)).run()
    rows = tables.profiles.scan().filter(pl.col("column_name") == ":table").collect()
    assert rows.filter(pl.col("granularity") == "1 hour")["count"].to_list() == [30]
    assert sorted(rows.filter(pl.col("granularity") == "10 minutes")["count"]) == [0] * 5 + [10] * 3


def test_a_fixed_baseline_is_compared_with_every_later_window(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    for hour, duration in enumerate((100, 120, 150)):
        start = TEN + hour * HOUR
        tables.payload.append(payload_rows(30, start, execution_duration_ms=duration))
    clock.advance(3600 * 3)
    baseline = Window(TEN, TEN + HOUR)
    runner = runner_for(tables, history, clock, baseline=baseline)
    runner.run()
    rows = (
        tables.drift.scan()
        .filter((pl.col("column_name") == "execution_duration_ms") & pl.col("slice_key").is_null())
        .sort(pl.col("window").struct.field("start"))
        .collect()
    )
    assert rows["drift_type"].to_list() == ["BASELINE", "BASELINE"]
    assert rows["wasserstein_distance"].to_list() == [20, 50]
    assert rows["window_cmp"].to_list() == [{"start": baseline.start, "end": baseline.end}] * 2
    assert runner.run().windows == ()
    # Another baseline is another comparison; the profiles are the same and are not written again.
    profiles = tables.profiles.scan().collect().height
    runner_for(tables, history, clock, baseline=Window(TEN + HOUR, TEN + 2 * HOUR)).run()
    assert tables.profiles.scan().collect().height == profiles
    assert tables.drift.scan().collect()["window_cmp"].n_unique() == 2


def test_the_trailing_time_before_a_window_is_a_reference(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    for hour, duration in enumerate((100, 120, 140, 200)):
        tables.payload.append(payload_rows(30, TEN + hour * HOUR, execution_duration_ms=duration))
    clock.advance(3600 * 4)
    runner_for(tables, history, clock, reference=Trailing(2 * HOUR, "2 hours")).run()
    rows = duration_rows(tables)
    assert rows["reference"].unique().to_list() == ["trailing 2 hours"]
    assert rows["drift_type"].unique().to_list() == ["CONSECUTIVE"]
    # Before the first window there was nothing; the second's two hours had one hour with records.
    assert rows["avg_delta"].to_list() == [20, 30, 70]
    assert rows["window_cmp"][2] == {"start": TEN + HOUR, "end": TEN + 3 * HOUR}


def test_variants_are_compared_with_one_of_them_in_the_same_window(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    for variant, duration in (("champion", 100), ("hot", 300)):
        tables.payload.append(payload_rows(30, TEN, variant=variant, execution_duration_ms=duration))
    tables.payload.append(payload_rows(30, TEN + HOUR, variant="hot"))
    clock.advance(3600 * 2)
    runner = runner_for(tables, history, clock, reference=OtherVariant("champion"))
    summary = runner.run()
    assert len(summary.windows) == 2
    rows = tables.drift.scan().filter(pl.col("column_name") == "execution_duration_ms").collect()
    assert rows.select("slice_value", "reference", "avg_delta", "drift_type").rows() == [
        ("hot", "variant champion", 200.0, "BASELINE")
    ]
    assert rows["window"].to_list() == rows["window_cmp"].to_list()
    # Where the champion had no record, its absence is all that is said.
    alone = tables.drift.scan().filter(pl.col("window").struct.field("start") == TEN + HOUR).collect()
    assert alone.select("column_name", "count_delta").rows() == [(":table", 30)]
    assert runner.run().windows == ()


def test_two_references_share_the_profiles_and_the_sketches_and_not_the_drift(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    for hour in range(3):
        tables.payload.append(payload_rows(30, TEN + hour * HOUR, variant="champion"))
    clock.advance(3600 * 3)
    runner_for(tables, history, clock).run()
    profiles, sketches = (table.scan().collect().height for table in (tables.profiles, tables.sketches))
    for reference in (OtherVariant("champion"), FixedWindow(Window(TEN, TEN + HOUR))):
        summary = runner_for(tables, history, clock, reference=reference).run()
        assert summary.profile_rows == 0
    assert tables.profiles.scan().collect().height == profiles
    # The empty hours before the first record had not been asked for with the other references.
    windows = tables.sketches.scan().filter(pl.col("rows") > 0).collect()
    assert windows.height == tables.sketches.scan().filter(pl.col("rows") > 0).unique().collect().height
    assert sketches > 0
    rows = tables.drift.scan().filter(pl.col("column_name") == ":table").collect()
    assert set(rows["reference"]) == {"previous", "baseline window"}


def test_a_run_that_is_cut_off_after_the_sketches_finds_them_again(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(30, TEN))
    clock.advance(3600)
    runner_for(tables, history, clock).run()
    sketches = tables.sketches.scan().collect()
    assert sketches.height > 0
    # As if the process had died after the first commit.
    for table in (tables.profiles, tables.drift):
        Path(table.uri).rename(f"{table.uri}_lost")
    whole = endpoint_tables(Path(tables.drift.uri).parents[2])
    runner_for(whole, history, clock).run()
    assert counts(whole.profiles.scan(), "count") == [(10, 30)]
    assert whole.sketches.scan().collect().height == sketches.height


def test_a_month_is_profiled_and_compared_from_its_days(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    for day, duration in ((1, 100), (9, 110), (31, 130)):
        start = datetime(2026, 1, day, 22, tzinfo=UTC)
        tables.payload.append(payload_rows(30, start, execution_duration_ms=duration))
    tables.payload.append(payload_rows(30, datetime(2026, 2, 28, 23, tzinfo=UTC), execution_duration_ms=300))
    runner = runner_for(tables, history, clock, granularity=Granularity.parse("1 month"), max_windows=3)
    runner.run()
    rows = duration_rows(tables)
    assert rows["window"].struct.field("start").dt.month().to_list() == [2]
    assert rows["avg_delta"].to_list() == [pytest.approx(300 - (100 + 110 + 130) / 3)]
    kept = tables.sketches.scan().filter(pl.col("column_name") == ":table", pl.col("rows") > 0).collect()
    days = kept.filter(pl.col("granularity") == "1 day")["request_date"].unique().sort().to_list()
    assert [(day.month, day.day) for day in days] == [(1, 1), (1, 9), (1, 31), (2, 28)]


def test_slices_by_other_columns_have_rows_of_their_own(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    for start in (TEN, TEN + HOUR):
        tables.payload.append(payload_rows(60, start, served_entity=["a", "b", "c"] * 20))
        tables.payload.append(payload_rows(5, start, served_entity="b"))
    clock.advance(3600 * 2)
    runner_for(tables, history, clock, slicing=Slicing(("served_entity",), limit=2)).run()
    rows = duration_rows(tables, whole=False)
    assert rows.select("slice_key", "slice_value").unique().sort("slice_value").rows() == [
        (None, None),
        ("served_entity", "a"),
        ("served_entity", "b"),
    ]
    assert "key=served_entity limit=2 records=20" in caplog.text


def duration_rows(tables: EndpointTables, *, whole: bool = True) -> pl.DataFrame:
    """The drift rows about the duration, those with a mean on both sides, in the order of time."""
    rows = tables.drift.scan().filter(pl.col("column_name") == "execution_duration_ms")
    if whole:
        rows = rows.filter(pl.col("slice_key").is_null())
    return rows.sort(pl.col("window").struct.field("start")).collect()


def test_until_now_compares_the_last_minutes_with_those_before(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    first = payload_rows(40, TEN + timedelta(minutes=20), variant=["control", "hot"] * 20)
    second = payload_rows(40, TEN + timedelta(minutes=28), variant=["control", "hot"] * 20)
    for payload, scale in ((first, 1), (second, 10)):
        tables.payload.append(payload)
        tables.scores.append(score_rows(payload, "perplexity", [scale * (20.0 + i) for i in range(40)]))
    runner = runner_for(tables, history, clock)
    summary = runner.run_until_now(timedelta(minutes=5))
    assert summary.windows == (Window(clock.now() - timedelta(minutes=5), clock.now()),)
    assert summary.granularity == "last 5 minutes"
    rows = tables.drift.scan().collect()
    assert rows["granularity"].unique().to_list() == ["last 5 minutes"]
    assert rows["slice_value"].unique().sort().to_list() == [None, "control", "hot"]
    reference = rows["window_cmp"][0]
    assert reference == {"start": TEN + timedelta(minutes=20), "end": TEN + timedelta(minutes=25)}
    verdict = drifted(rows.filter(pl.col("slice_key").is_null()))
    flagged = verdict.filter("drifted")["column_name"].to_list()
    assert flagged == ["score:perplexity"]
    # The clock has not moved: the same windows again add nothing.
    assert runner.run_until_now(timedelta(minutes=5)).windows == ()
    assert tables.drift.scan().collect().height == rows.height
    clock.advance(1)
    assert len(runner.run_until_now(timedelta(minutes=5)).windows) == 1


def test_any_two_windows_can_be_compared_once(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(60, TEN, every=timedelta(seconds=1)))
    first = Window(TEN, TEN + timedelta(seconds=30))
    second = Window(first.end, first.end + timedelta(seconds=30))
    runner = runner_for(tables, history, clock)
    summary = runner.run_window(second, first, granularity="halves")
    assert (len(summary.windows), summary.drift_rows > 0) == (1, True)
    assert runner.run_window(second, first, granularity="halves").windows == ()
    runner.run_window(first, second, granularity="halves")
    assert counts(tables.profiles.scan(), "count") == [(10, 30), (10, 30)]


def test_a_run_is_in_the_history_with_its_records(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(5, TEN))
    runner = runner_for(tables, history, clock)
    runner.run()
    assert history.recent() == []
    clock.advance(3600)
    runner.run()
    run = history.recent()[0]
    assert (run.evaluator, run.endpoint, run.state, run.scored) == ("drift", ENDPOINT, "succeeded", 5)
    assert run.to_version == tables.payload.version()


def test_a_report_that_cannot_be_written_fails_the_run_but_keeps_the_rows(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "reports"
    in_the_way.write_text("a file where the folder should be")
    tables.payload.append(payload_rows(30, TEN))
    tables.payload.append(payload_rows(30, TEN + HOUR))
    clock.advance(3600 * 2)
    runner = runner_for(tables, history, clock, report=ReportWriter(in_the_way))
    with pytest.raises(Unavailable, match="reports_dir"):
        runner.run()
    run = history.recent()[0]
    assert run.state == "failed"
    assert run.error is not None
    assert "report" in run.error
    assert counts(tables.profiles.scan(), "count") == [(10, 30), (11, 30)]
    assert runner.run().windows == ()


def test_the_newest_window_of_a_run_gets_a_report(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, tmp_path: Path
) -> None:
    tables.payload.append(payload_rows(30, TEN))
    tables.payload.append(payload_rows(30, TEN + HOUR))
    clock.advance(3600 * 2)
    summary = runner_for(tables, history, clock, report=ReportWriter(tmp_path / "reports")).run()
    expected = tmp_path / "reports" / ENDPOINT / "1-hour_20260304T110000_20260304T120000.html"
    assert summary.report == expected
    assert expected.exists()


@pytest.mark.parametrize("reference", [None, OtherVariant("control")])
def test_windows_that_give_no_drift_row_are_behind_it_too(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, reference: Any
) -> None:
    rows = pl.concat([payload_rows(5, TEN, variant=name) for name in ("control", "challenger")])
    tables.payload.append(rows)
    runner = runner_for(tables, history, clock, max_windows=2, reference=reference)
    clock.advance(3600)
    runner.run()
    # A pause that is longer than what one run does: nothing is compared with nothing, and there is no other variant.
    clock.advance(3600 * 6)
    for _ in range(4):
        runner.run()
    assert runner.run().windows == ()
    tables.payload.append(payload_rows(3, TEN + 7 * HOUR))
    clock.advance(3600)
    assert [window.start for window in runner.run().windows] == [TEN + 7 * HOUR]
