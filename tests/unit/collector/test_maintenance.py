from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from collector.catalog import SCORE_SCHEMA, EndpointTables
from collector.departed_rows import departed_rows
from collector.maintenance import MaintainedEndpoint, Maintenance, Rules, Upkeep
from servelens.clock import ManualClock
from servelens.errors import Unavailable
from tests.unit.collector.maintained import TODAY, WORKER, catalog, fill, offsets, records

DAY = timedelta(days=1)


def maintained(
    tables: EndpointTables, clock: ManualClock, *, days: int | None = None, **rules: int
) -> Upkeep:
    return Maintenance(lambda: [MaintainedEndpoint("chat", tables, days)], clock, Rules(**rules)).run()


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return catalog(tmp_path).tables("chat")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(TODAY)


def files(tables: EndpointTables) -> list[str]:
    return DeltaTable(tables.payload.uri).file_uris()


def test_tables_that_are_not_there_are_none_of_its_business(
    tables: EndpointTables, clock: ManualClock
) -> None:
    assert maintained(tables, clock, days=1) == Upkeep()
    assert not tables.payload.exists()


def test_small_files_become_one_and_nobody_who_follows_the_table_sees_it(
    tables: EndpointTables, clock: ManualClock
) -> None:
    rows = fill(tables, 6)
    seen = tables.payload.read_since(None).version
    upkeep = maintained(tables, clock, min_files=6)
    assert (upkeep.files_removed, upkeep.files_added) == (6, 1)
    assert len(files(tables)) == 1
    assert offsets(tables) == list(range(rows))
    assert tables.payload.read_since(seen).frame.is_empty()
    assert tables.payload.read_since(None).frame.height == rows
    assert tables.payload.transaction_version(WORKER) == rows - 1
    version = tables.payload.version()
    assert maintained(tables, clock, min_files=6).files_removed == 0
    assert tables.payload.version() == version, "a run that finds nothing to do commits nothing"


def test_a_day_with_few_small_files_is_left_alone_while_it_lasts_and_tidied_up_when_it_is_over(
    tables: EndpointTables, clock: ManualClock
) -> None:
    fill(tables, 5)
    assert maintained(tables, clock, min_files=6).files_removed == 0
    clock.advance(86_400)
    assert maintained(tables, clock, min_files=6).files_removed == 5
    assert len(files(tables)) == 1


def test_only_the_days_that_need_it_are_written_anew(tables: EndpointTables, clock: ManualClock) -> None:
    fill(tables, 1, TODAY - DAY)
    before = files(tables)
    fill(tables, 6, first=3)
    assert maintained(tables, clock, min_files=6).files_removed == 6
    assert set(before) < set(files(tables))


def test_rows_that_came_out_of_order_are_sorted_when_the_day_is_over(
    tables: EndpointTables, clock: ManualClock
) -> None:
    # Two workers, one of them after an outage: each large file spans the same hours.
    text = [f"{number:>4096}" for number in range(400)]
    for first in (0, 400):
        day = records(first, 400, prompt_text=text).with_columns(
            request_time=pl.lit(TODAY) + pl.duration(seconds=pl.int_range(400) * 20)
        )
        tables.payload.append(day, transactions={WORKER: first + 399})
    assert maintained(tables, clock, min_files=2, target_bytes=1).files_removed == 0, "the day is not over"
    clock.advance(86_400)
    assert maintained(tables, clock, min_files=9).files_removed == 2
    assert offsets(tables) == list(range(800))
    assert tables.payload.scan().collect()["request_time"].is_sorted()
    version = tables.payload.version()
    maintained(tables, clock, min_files=9)
    assert tables.payload.version() == version, "it is sorted once"


def test_a_day_that_is_too_large_to_be_sorted_stays_in_the_order_of_arrival(
    tables: EndpointTables, clock: ManualClock
) -> None:
    for first in (0, 3):
        tables.payload.append(records(first, 3), transactions={WORKER: first + 2})
    clock.advance(86_400)
    size = sum(Path(file).stat().st_size for file in files(tables))
    assert maintained(tables, clock, target_bytes=size // 5).files_removed == 0
    assert len(files(tables)) == 2


def test_rows_leave_when_their_days_are_over_and_the_books_stay_balanced(
    tables: EndpointTables, clock: ManualClock
) -> None:
    rows = fill(tables, 2, TODAY - 9 * DAY) + fill(tables, 2, TODAY - 7 * DAY, first=6)
    scored = records(0, 3, TODAY - 9 * DAY).select("databricks_request_id", "request_date", "request_time")
    tables.scores.append(scored)
    tables.embeddings.append(scored)
    tables.profiles.append(
        pl.DataFrame({"window": [{"start": TODAY - 9 * DAY, "end": TODAY - 8 * DAY}], "count": [6]})
    )
    seen = tables.payload.version()
    assert maintained(tables, clock).rows_deleted == 0, "by default everything is kept"
    assert maintained(tables, clock, days=7).rows_deleted == 12
    assert offsets(tables) == list(range(6, 12)), "what is exactly seven days old stays for the day"
    assert tables.scores.scan().collect().is_empty()
    assert tables.embeddings.scan().collect().is_empty()
    assert tables.profiles.scan().collect().height == 1, "sums over windows name nobody"
    assert tables.payload.read_since(seen).frame.is_empty()
    assert tables.payload.transaction_version(WORKER) == rows - 1
    assert departed_rows(tables.payload, [WORKER, "other"]) == {WORKER: 6, "other": 0}
    fill(tables, 1, TODAY - 8 * DAY, first=rows)
    assert maintained(tables, clock, days=7).rows_deleted == 3, "late rows leave as well"
    assert departed_rows(tables.payload, [WORKER]) == {WORKER: 9}


def test_rows_are_deleted_without_writing_others_anew(tables: EndpointTables, clock: ManualClock) -> None:
    fill(tables, 2, TODAY - 9 * DAY)
    fill(tables, 2, first=6)
    before = files(tables)
    maintained(tables, clock, days=7)
    assert set(files(tables)) < set(before)


def test_endpoints_are_asked_for_at_each_run(tmp_path: Path, clock: ManualClock) -> None:
    everything = catalog(tmp_path, "code")
    names = ["chat"]
    maintenance = Maintenance(
        lambda: [MaintainedEndpoint(name, everything.tables(name)) for name in names],
        clock,
        Rules(min_files=2),
    )
    for name in ("chat", "code"):
        fill(everything.tables(name), 2)
    assert maintenance.run().tables == 1
    names.append("code")
    assert maintenance.run().files_removed == 2
    assert len(files(everything.tables("code"))) == 1


def test_a_table_that_fails_stops_no_other_and_is_named(tmp_path: Path, clock: ManualClock) -> None:
    everything = catalog(tmp_path, "broken")
    broken = everything.tables("broken")
    fill(broken, 2)
    for file in (Path(broken.payload.uri) / "_delta_log").iterdir():
        file.write_text("{ this is no log")
    fill(everything.tables("chat"), 2)
    maintenance = Maintenance(
        lambda: [MaintainedEndpoint(name, everything.tables(name)) for name in ("broken", "chat")],
        clock,
        Rules(min_files=2),
    )
    with pytest.raises(Unavailable, match="broken_payload: 1 tables were not maintained"):
        maintenance.run()
    assert len(files(everything.tables("chat"))) == 1


def test_a_run_that_is_to_stop_ends(tables: EndpointTables, clock: ManualClock) -> None:
    fill(tables, 3)
    stop = threading.Event()
    stop.set()
    maintenance = Maintenance(lambda: [MaintainedEndpoint("chat", tables)], clock, Rules(min_files=2))
    assert maintenance.run(stop) == Upkeep()
    assert len(files(tables)) == 3


def test_scores_are_compacted_like_records(tables: EndpointTables, clock: ManualClock) -> None:
    for number in range(3):
        tables.scores.append(records(number, 1).select("databricks_request_id", "request_date"))
        tables.drift.append(pl.DataFrame({"granularity": ["1 hour"]}))
    upkeep = maintained(tables, clock, min_files=3)
    assert (upkeep.tables, upkeep.files_removed, upkeep.files_added) == (2, 6, 2)
    assert tables.scores.scan().collect().columns == SCORE_SCHEMA.names
    assert tables.drift.scan().collect().height == 3
