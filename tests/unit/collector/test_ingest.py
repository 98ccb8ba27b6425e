from __future__ import annotations

import dataclasses
import datetime as dt
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from collector.catalog import Catalog, EndpointTables, TableName
from collector.dead_letter import DeadLetter
from collector.ingest import Collector
from collector.record import UNROUTED, Record
from collector.spool import SpoolWriter
from collector.table import Table
from servelens.clock import ManualClock
from servelens.errors import Conflict

NOON_US = 1_772_366_400_000_000
NAMES = {"chat": TableName("main", "serving", "chat"), "code": TableName("main", "serving", "code")}


def record(name: str, endpoint: str = "chat", **fields: Any) -> Record:
    given: dict[str, Any] = {
        "request_id": name,
        "request_time_us": NOON_US,
        "status_code": 200,
        "duration_us": 1_000,
        "endpoint": endpoint,
        "api": "chat",
        "request": b'{"messages": [{"role": "user", "content": "Hi"}]}',
        **fields,
    }
    return Record(**given)


class Place:
    """A spool root, tables and a dead letter in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spools = folder / "spool"
        self.lake = folder / "lake"
        self.letters = DeadLetter(folder / "dead")

    def catalog(self) -> Catalog:
        return Catalog(str(self.lake), NAMES)

    def collector(self, **options: Any) -> Collector:
        return Collector(self.spools, self.catalog(), self.letters, **options)

    def spool(self, records: Sequence[Record], slot: str = "proxy-0", **options: Any) -> str:
        writer = SpoolWriter.open(self.spools / slot, **options)
        for item in records:
            writer.append(item, None)
        writer.flush(10)
        writer.close(10)
        return writer.worker_id

    def drain(self, **options: Any) -> Collector:
        collector = self.collector(**options)
        assert collector.drain()
        collector.close()
        return collector

    def rows(self, endpoint: str = "chat") -> pl.DataFrame:
        return self.catalog().tables(endpoint).payload.scan().sort("worker_id", "spool_offset").collect()

    def ids(self, endpoint: str = "chat") -> list[str]:
        return self.rows(endpoint)["databricks_request_id"].to_list()

    def holds(self, count: int, endpoint: str = "chat") -> bool:
        return len(self.ids(endpoint)) == count

    def segments(self, slot: str = "proxy-0") -> list[Path]:
        return sorted((self.spools / slot).glob("*.seg"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def running(place: Place) -> Iterator[Callable[..., Collector]]:
    """Starts a collector on a thread; it is stopped, and its errors raised, when the test ends."""
    stop = threading.Event()
    threads: list[threading.Thread] = []
    errors: list[Exception] = []

    def start(**options: Any) -> Collector:
        collector = place.collector(**options)

        def run() -> None:
            try:
                collector.run(stop)
            except Conflict as error:
                errors.append(error)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return collector

    yield start
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not errors


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


def step_until(collector: Collector, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    def stepped() -> bool:
        collector.step()
        return condition()

    eventually(stepped, timeout_s)


def test_records_of_many_endpoints_and_workers_come_to_their_tables(place: Place) -> None:
    first = place.spool([record("a0"), record("b0", "code"), record("x0", UNROUTED), record("a1")])
    second = place.spool([record("a2"), record("y0", "renamed-since")], "proxy-1")
    collector = place.drain()
    assert place.ids("chat") == ["a0", "a1", "a2"]
    assert place.ids("code") == ["b0"]
    assert place.ids(UNROUTED) == ["x0", "y0"]
    assert place.rows()["spool_offset"].to_list() == [0, 3, 0]
    assert place.rows(UNROUTED)["endpoint"].to_list() == [UNROUTED, "renamed-since"]
    payload = place.catalog().tables("chat").payload
    assert payload.version() == 1, "two workers share one commit"
    assert payload.transaction_versions([first, second]) == {first: 3, second: 1}
    assert (collector.status.in_table, collector.status.settled, collector.status.healthy) == (6, 6, True)
    assert collector.status.backlog_bytes == 0
    assert collector.status.last_commit_us is not None


def test_a_restart_adds_what_is_new_and_nothing_else(place: Place) -> None:
    place.spool([record("a0"), record("a1")])
    place.drain()
    again = place.drain()
    assert again.status.in_table == 0
    place.spool([record("a2"), record("b0", "code")])
    assert place.drain().status.in_table == 2
    assert place.ids() == ["a0", "a1", "a2"]
    assert place.ids("code") == ["b0"]


def test_segments_go_when_their_records_are_in_the_tables(place: Place) -> None:
    place.spool([record(f"a{n:04d}") for n in range(2_000)], segment_bytes=64_000)
    assert len(place.segments()) > 1
    place.drain(max_rows=100)
    assert len(place.segments()) == 1
    assert place.ids() == [f"a{n:04d}" for n in range(2_000)]


def test_a_record_is_readable_within_seconds(place: Place, running: Callable[..., Collector]) -> None:
    running()
    writer = SpoolWriter.open(place.spools / "proxy-0")
    for number in range(3):
        began = time.monotonic()
        writer.append(record(f"a{number}"), None)
        eventually(partial(place.holds, number + 1), 10.0)
        assert time.monotonic() - began < 5.0
    writer.close(10)


def test_stopping_drains_what_the_writers_left(place: Place) -> None:
    place.spool([record(f"a{number}") for number in range(300)])
    stop = threading.Event()
    stop.set()
    collector = place.collector(max_rows=50)
    collector.run(stop)
    assert len(place.ids()) == 300
    assert collector.status.lag_s == 0.0


def test_there_is_one_collector_for_a_spool_root(place: Place) -> None:
    first = place.collector()
    first.step()
    with pytest.raises(Conflict, match="another collector"):
        place.collector().step()
    first.close()
    second = place.collector()
    second.step()
    second.close()


def test_a_record_that_cannot_be_read_keeps_its_bytes_in_the_dead_letter(place: Place) -> None:
    worker = place.spool([record("a0"), record("bad", status_code="many"), record("a2")])
    for _ in range(2):
        collector = place.drain()
        assert place.ids() == ["a0", "a2"]
        (entry,) = place.letters.entries()
        assert (entry.kind, entry.worker_id, entry.offset) == ("record", worker, 1)
        assert "Expected `int`" in entry.reason
        assert b"many" in place.letters.content(entry)
    assert collector.status.dead_lettered == 0, "it was there already"
    assert collector.status.settled == 3


def test_a_run_of_unreadable_records_halts_that_worker_and_no_other(place: Place) -> None:
    bad = [record(f"bad{number}", status_code="many") for number in range(40)]
    worker = place.spool([record("a0"), *bad, record("a9")])
    place.spool([record("b0")], "proxy-1")
    for _ in range(2):
        collector = place.drain()
        assert place.ids() == ["a0", "b0"]
        assert len(list(place.letters.entries())) == 20
        assert "in a row" in collector.status.halted[worker]
        assert not collector.status.healthy
        assert place.segments(), "the spool keeps the rest"


def test_unreadable_records_that_are_not_in_a_row_halt_nobody(place: Place) -> None:
    mixed = [record(f"a{number}", status_code="many" if number % 2 else 200) for number in range(100)]
    place.spool(mixed)
    collector = place.drain()
    assert len(place.ids()) == 50
    assert collector.status.dead_lettered == 50
    assert not collector.status.halted


def test_a_value_that_fits_no_column_goes_to_the_dead_letter(place: Place) -> None:
    place.spool([record("a0"), record("huge", status_code=2**40), record("a2")])
    collector = place.drain()
    assert place.ids() == ["a0", "a2"]
    (entry,) = place.letters.entries()
    assert entry.offset == 1
    assert collector.status.settled == 3


def test_damaged_bytes_are_named_and_the_records_around_them_arrive(place: Place) -> None:
    worker = place.spool([record(f"record-{number}") for number in range(5)])
    segment = place.segments()[0]
    data = bytearray(segment.read_bytes())
    spot = data.index(b"record-2")
    data[spot] ^= 0xFF
    segment.write_bytes(bytes(data))
    collector = place.drain()
    assert place.ids() == ["record-0", "record-1", "record-3", "record-4"]
    (entry,) = place.letters.entries()
    assert (entry.kind, entry.worker_id, entry.first_missing, entry.missing) == ("region", worker, 2, 1)
    assert entry.segment == segment.name
    assert entry.start is not None
    assert entry.end is not None
    assert place.letters.content(entry) == bytes(data[entry.start : entry.end])
    assert collector.status.damaged_regions == 1


def test_while_one_tables_storage_is_away_the_others_go_on_and_nothing_is_lost(place: Place) -> None:
    place.spool([record("a0"), record("b0", "code")])
    place.drain()
    home = Path(place.catalog().tables("chat").payload.uri)
    home.rename(place.folder / "away")
    home.write_text("a file in place of the table")
    collector = place.collector(commit_interval_s=0.0)
    for step in range(5):
        names = [f"{step}-{number}" for number in range(200)]
        place.spool(
            [*(record(f"a{name}") for name in names), *(record(f"b{name}", "code") for name in names)],
            segment_bytes=50_000,
        )
        step_until(collector, partial(place.holds, 1 + 200 * (step + 1), "code"))
    collector.step()
    assert len(place.segments()) > 3, "the spool holds what the table does not take"
    step_until(collector, lambda: not collector.status.healthy)
    assert list(collector.status.failing) == [str(home)]
    assert collector.status.lag_s > 0
    home.unlink()
    (place.folder / "away").rename(home)
    step_until(collector, lambda: len(place.ids("chat")) == 1001)
    assert collector.drain()
    assert collector.status.healthy
    assert len(place.segments()) == 1
    place.spool([record("a-last")])
    assert collector.drain()
    collector.close()
    for endpoint in ("chat", "code"):
        ids = place.ids(endpoint)
        assert len(ids) == len(set(ids)) == (1002 if endpoint == "chat" else 1001)


def test_a_collector_that_starts_while_a_table_is_away_fills_it_later(place: Place) -> None:
    place.lake.write_text("a file where the tables should be")
    place.spool([record("a0"), record("b0", "code")])
    collector = place.collector()
    step_until(collector, lambda: len(collector.status.failing) == 2)
    place.lake.unlink()
    assert collector.drain()
    collector.close()
    assert (place.ids("chat"), place.ids("code")) == (["a0"], ["b0"])


def test_a_collector_that_stops_while_a_table_is_away_loses_nothing(place: Place) -> None:
    place.lake.write_text("a file where the tables should be")
    place.spool([record(f"a{number}") for number in range(10)])
    collector = place.collector(drain_timeout_s=0.5)
    assert not collector.drain()
    collector.close()
    place.lake.unlink()
    place.drain()
    assert len(place.ids()) == 10


def test_the_dead_letter_being_away_holds_the_worker_back(place: Place) -> None:
    place.spool([record("a0"), record("huge", status_code=2**40), record("a2")])
    place.letters.directory.write_text("a file")
    collector = place.collector(drain_timeout_s=0.5)
    assert not collector.drain()
    assert not Path(place.catalog().tables("chat").payload.uri).exists()
    place.letters.directory.unlink()
    step_until(collector, lambda: collector.status.in_table == 2)
    collector.close()
    assert place.ids() == ["a0", "a2"]
    assert len(list(place.letters.entries())) == 1


def test_the_dead_letter_being_away_doubles_nothing_either(place: Place) -> None:
    many = [record(f"a{number:05d}") for number in range(6_000)]
    many[4_000] = record("huge", status_code=2**40)
    place.spool(many)
    place.letters.directory.write_text("a file")
    collector = place.collector(max_rows=5_500, drain_timeout_s=0.5)
    assert not collector.drain()
    place.letters.directory.unlink()
    step_until(collector, lambda: collector.status.in_table == 5_999)
    collector.close()
    assert place.ids() == [item.request_id for item in many if item.request_id != "huge"]


def test_a_commit_whose_outcome_nobody_saw_is_not_repeated(place: Place) -> None:
    worker = place.spool([record("a0"), record("a1")])
    place.drain()
    # The table knows of both records; a collector that does not must find out.
    place.spool([record("a2")])
    collector = place.collector()
    step_until(collector, lambda: collector.status.settled == 3)
    collector.close()
    assert place.ids() == ["a0", "a1", "a2"]
    assert place.catalog().tables("chat").payload.transaction_version(worker) == 2


def test_a_wiped_worker_directory_is_a_new_worker(place: Place) -> None:
    place.spool([record("a0")])
    collector = place.collector()
    step_until(collector, lambda: collector.status.in_table == 1)
    shutil.rmtree(place.spools / "proxy-0")
    place.spool([record("a1")])
    step_until(collector, lambda: collector.status.in_table == 2)
    collector.close()
    assert sorted(place.ids()) == ["a0", "a1"]
    assert place.rows()["spool_offset"].to_list() == [0, 0]


def test_the_torn_tail_of_a_dead_writer_is_passed_over(place: Place) -> None:
    place.spool([record("a0"), record("a1")])
    segment = place.segments()[0]
    segment.write_bytes(segment.read_bytes()[:-5])
    assert place.drain().status.in_table == 1
    place.spool([record("a2")])
    place.drain()
    assert place.ids() == ["a0", "a2"]


def test_tables_that_were_compacted_meanwhile_change_nothing(place: Place) -> None:
    collector = place.collector(commit_interval_s=0.0)
    for number in range(4):
        place.spool([record(f"a{number}")])
        step_until(collector, partial(place.holds, number + 1))
        DeltaTable(place.catalog().tables("chat").payload.uri).optimize.compact()
    collector.close()
    assert place.drain().status.in_table == 0
    assert place.ids() == ["a0", "a1", "a2", "a3"]


class StuckTable(Table):
    """A table on a storage that does not answer until it is told to."""

    def __init__(self, uri: str, schema: pa.Schema) -> None:
        super().__init__(uri, schema)
        self.answers = threading.Event()

    def append(
        self,
        rows: pa.Table | pl.DataFrame,
        *,
        transactions: Mapping[str, int] | None = None,
        after: Mapping[str, int | None] | None = None,
    ) -> int:
        assert self.answers.wait(60)
        return super().append(rows, transactions=transactions, after=after)


class StuckCatalog(Catalog):
    """A catalog in which the table of the endpoint ``chat`` is stuck."""

    def __init__(self, root: str) -> None:
        super().__init__(root, NAMES)
        tables = super().tables("chat")
        self.stuck = StuckTable(tables.payload.uri, tables.payload.schema)
        self._chat = dataclasses.replace(tables, payload=self.stuck)

    def tables(self, endpoint: str) -> EndpointTables:
        return self._chat if endpoint == "chat" else super().tables(endpoint)


def test_a_storage_that_does_not_answer_holds_up_its_own_table_only(place: Place) -> None:
    clock = ManualClock(dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC))
    catalog = StuckCatalog(str(place.lake))
    collector = Collector(place.spools, catalog, place.letters, clock=clock)
    place.spool([record("a0"), record("b0", "code")])
    collector.step()
    clock.advance(1.5)
    collector.step()
    place.spool([record("a1"), record("b1", "code")])
    clock.advance(1.5)
    collector.step()
    assert place.ids("code") in ([], ["b0"]), "the batch behind waits for the one in flight"
    # The healthy table's commit has to be seen before the clock leaps, or it counts as stalled as well.
    step_until(collector, lambda: bool(clock.advance(0.02) or collector.status.in_table == 1))
    clock.advance(10)
    step_until(collector, lambda: place.ids("code") == ["b0", "b1"])
    clock.advance(1)
    collector.step()
    assert "does not answer" in collector.status.failing[catalog.stuck.uri]
    catalog.stuck.answers.set()

    def caught_up() -> bool:
        clock.advance(0.5)
        return collector.status.healthy and collector.status.settled == 4

    step_until(collector, caught_up)
    place.spool([record("a2"), record("b2", "code")])
    step_until(collector, lambda: bool(clock.advance(0.5) or collector.status.settled == 6))
    collector.close()
    assert place.ids("chat") == ["a0", "a1", "a2"]
    assert place.ids("code") == ["b0", "b1", "b2"]
    assert collector.status.in_table == 6
