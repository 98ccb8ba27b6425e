"""Windows are made of stored sketches where there are any; the records are taken away to prove it."""

from __future__ import annotations

import shutil
from dataclasses import astuple
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from collector.catalog import EndpointTables
from evaluators.drift.sketch_store import SketchStore
from evaluators.drift.sketches.kinds import STANDARD_KINDS
from evaluators.drift.slices import BY_VARIANT, WHOLE, Slice, Slicing
from evaluators.drift.sources import Kind
from evaluators.drift.window_data import STANDARD_SOURCES, PayloadColumns, ScoreColumns, observe
from evaluators.drift.window_reader import WindowReader
from evaluators.drift.window_sketches import WindowSketches
from evaluators.drift.windows import Granularity, Window
from servelens.clock import ManualClock
from tests.unit.evaluators.inference_rows import payload_rows, score_rows

MARCH = Granularity.parse("1 month").containing(datetime(2026, 3, 4, tzinfo=UTC))
HOUR, DAY, MONTH = (Granularity.parse(text) for text in ("1 hour", "1 day", "1 month"))
LATER = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(LATER)


def reader_for(
    tables: EndpointTables,
    granularity: Granularity,
    *,
    slicing: Slicing = BY_VARIANT,
    closed_before: datetime = LATER,
) -> tuple[WindowReader, SketchStore]:
    store = SketchStore(tables.sketches, STANDARD_SOURCES, slicing, STANDARD_KINDS)
    version = tables.payload.version()
    reader = WindowReader(
        tables,
        store,
        STANDARD_SOURCES,
        slicing,
        STANDARD_KINDS,
        granularity=granularity,
        version=0 if version is None else version,
        closed_before=closed_before,
    )
    return reader, store


def fill(
    tables: EndpointTables, start: datetime, every: timedelta, count: int, seed: int = 1
) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    payload = payload_rows(
        count,
        start,
        every=every,
        execution_duration_ms=generator.integers(0, 500, size=count).tolist(),
        variant=generator.choice(["control", "hot"], size=count).tolist(),
        finish_reason=generator.choice(["stop", "length"], size=count).tolist(),
    )
    tables.payload.append(payload)
    tables.scores.append(
        score_rows(payload.head(count // 2), "perplexity", generator.normal(size=count // 2))
    )
    return payload


def scanned(tables: EndpointTables, window: Window, slicing: Slicing = BY_VARIANT) -> WindowSketches:
    return WindowSketches.of(observe(tables, window, slicing=slicing), slicing, STANDARD_KINDS)


def assert_same(a: WindowSketches, b: WindowSketches) -> None:
    """Equal but for the rounding of means."""
    assert a.slices.keys() == b.slices.keys()
    for one, part in a.slices.items():
        other = b.slices[one]
        assert (part.rows, set(part.columns)) == (other.rows, set(other.columns))
        for name, known in part.columns.items():
            assert known.column == other.columns[name].column
            sketches = known.sketch, other.columns[name].sketch
            if known.column.kind is Kind.NUMERIC:
                numbers = [
                    (sketch.sample.values.tolist(), sketch.sample.weights.tolist(), sketch.nulls)
                    for sketch in sketches
                ]
                assert numbers[0] == numbers[1], name
                assert astuple(sketches[0].moments) == pytest.approx(astuple(sketches[1].moments)), name
            else:
                assert sketches[0] == sketches[1], name


def test_a_month_is_made_of_days_and_these_of_hours_without_a_second_look_at_records(
    tables: EndpointTables,
) -> None:
    start = MARCH.start + timedelta(days=2, hours=20)
    fill(tables, start, timedelta(minutes=7), 60)
    expected = scanned(tables, MARCH)
    hours, store = reader_for(tables, HOUR)
    for number in range(8):  # into the next day
        hours.of(HOUR.containing(start + timedelta(hours=number)))
    store.write(hours.new, 0)
    # Without any record: what is known now comes from the sketches of hours alone.
    shutil.rmtree(tables.payload.uri)
    shutil.rmtree(tables.scores.uri)
    reader, store = reader_for(tables, MONTH)
    assert_same(reader.of(MARCH), expected)
    assert reader.of(MARCH).rows == 60
    kept = {str(level) for level, _ in reader.new}
    assert kept == {"1 day", "1 month"}
    store.write(reader.new, 0)
    again, _ = reader_for(tables, MONTH)
    assert_same(again.of(MARCH), expected)
    assert again.new == {}


def test_a_trailing_window_is_made_of_days_hours_and_what_is_left_at_its_ends(tables: EndpointTables) -> None:
    fill(tables, MARCH.start, timedelta(minutes=17), 500)
    start = MARCH.start + timedelta(days=1, hours=4, minutes=7, seconds=3)
    window = Window(start, start + timedelta(days=2, hours=7))
    reader, _ = reader_for(tables, Granularity.parse("10 minutes"))
    assert_same(reader.of(window), scanned(tables, window))
    kept = [(str(level), each.start.hour) for level, each in reader.new]
    assert kept.count(("1 day", 0)) == 1
    assert ("1 hour", 5) in kept
    assert not any(each.start == start for _, each in reader.new)


def test_an_hour_is_made_of_five_minutes_when_all_of_them_are_stored(tables: EndpointTables) -> None:
    fill(tables, MARCH.start, timedelta(seconds=61), 120)
    five = Granularity.parse("5 minutes")
    parts, store = reader_for(tables, five)
    first = HOUR.containing(MARCH.start)
    window = five.containing(MARCH.start)
    while window.end < HOUR.after(first).end:  # all of the first hour, and all but the last of the second
        parts.of(window)
        window = five.after(window)
    store.write(parts.new, 0)
    expected = scanned(tables, first)
    shutil.rmtree(tables.payload.uri)
    reader, _ = reader_for(tables, HOUR)
    assert_same(reader.of(first), expected)
    assert reader.of(
        HOUR.after(first)
    ).is_empty  # an incomplete set is of no use: the records were asked, and are gone


def test_a_window_that_is_not_closed_is_not_stored(tables: EndpointTables) -> None:
    fill(tables, MARCH.start, timedelta(minutes=1), 90)
    reader, _ = reader_for(tables, HOUR, closed_before=MARCH.start + timedelta(minutes=59))
    assert reader.of(HOUR.containing(MARCH.start)).rows == 60
    assert reader.new == {}


def test_sketches_of_another_layout_are_made_anew(tables: EndpointTables) -> None:
    fill(tables, MARCH.start, timedelta(minutes=1), 60)
    window = HOUR.containing(MARCH.start)
    reader, store = reader_for(tables, HOUR)
    reader.of(window)
    store.write(reader.new, 0)
    assert store.read([window], HOUR).keys() == {window}
    for sources, slicing in (
        (STANDARD_SOURCES, Slicing(("variant", "finish_reason"))),
        ((PayloadColumns(version="2"), ScoreColumns()), BY_VARIANT),
    ):
        other = SketchStore(tables.sketches, sources, slicing, STANDARD_KINDS)
        assert other.read([window], HOUR) == {}
    changed, _ = reader_for(tables, HOUR, slicing=Slicing(("finish_reason",)))
    assert {one.key for one in changed.of(window).slices} == {None, "finish_reason"}


def test_a_window_that_was_written_twice_is_read_once(tables: EndpointTables) -> None:
    fill(tables, MARCH.start, timedelta(minutes=1), 60)
    window = HOUR.containing(MARCH.start)
    reader, store = reader_for(tables, HOUR)
    sketches = reader.of(window)
    store.write(reader.new, 3, ("sketches@1 hour", 60))
    store.write(reader.new, 4, ("sketches@1 hour", 60))  # the transaction is in the table already
    assert tables.sketches.version() == 2
    assert_same(store.read([window], HOUR)[window], sketches)


def test_many_windows_are_stored_while_they_are_made(tables: EndpointTables) -> None:
    fill(tables, MARCH.start, timedelta(hours=1), 50)
    reader, store = reader_for(tables, DAY)
    days = [DAY.containing(MARCH.start + timedelta(days=number)) for number in range(3)]
    assert [reader.of(day).rows for day in days] == [24, 24, 2]
    assert len(reader.new) < 64
    stored = tables.sketches.scan().select(pl.struct("granularity", "window")).unique().collect().height
    assert stored == 64
    store.write(reader.new, 0)
    assert store.read(days, DAY).keys() == set(days)


def test_a_month_without_a_record_is_one_look(tables: EndpointTables) -> None:
    fill(tables, MARCH.start, timedelta(hours=1), 5)
    reader, _ = reader_for(tables, MONTH)
    assert reader.of(MONTH.before(MARCH)).is_empty
    assert [level for level, _ in reader.new] == [MONTH]


def test_slices_beyond_the_limit_are_left_out_of_longer_windows_too(tables: EndpointTables) -> None:
    """`b` is among the two largest of the second hour only, so nobody knows how many it had in both."""
    first, second = MARCH.start, MARCH.start + timedelta(hours=1)
    for start, shares in ((first, {"a": 9, "c": 6, "b": 3}), (second, {"a": 9, "b": 8, "d": 1})):
        for variant, count in shares.items():
            tables.payload.append(payload_rows(count, start, variant=variant))
    slicing = Slicing(limit=2)
    hours = [scanned(tables, Window(start, start + timedelta(hours=1)), slicing) for start in (first, second)]
    assert [sorted(str(one.value) for one in hour.slices if one != WHOLE) for hour in hours] == [
        ["a", "c"],
        ["a", "b"],
    ]
    assert [hour.left_out for hour in hours] == [{"variant": 3}, {"variant": 1}]
    both = WindowSketches.merged(hours, slicing, STANDARD_KINDS)
    assert {one: part.rows for one, part in both.slices.items()} == {WHOLE: 36, Slice("variant", "a"): 18}
    assert both.left_out == {"variant": 18}
