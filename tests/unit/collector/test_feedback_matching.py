"""Feedback without an endpoint finds its record and moves there, once, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from collector.audit import Audit
from collector.catalog import Catalog, EndpointTables
from collector.deletion import delete_keys
from collector.feedback_matching import APPLICATION_ID, FeedbackMatching, MatchingSummary
from collector.feedback_record import Part
from collector.record import UNROUTED, Record
from collector.table import Table
from servelens.clock import ManualClock
from servelens.errors import Unavailable
from servelens.identifiers import id_at
from tests.unit.collector.test_feedback import feedback, rows
from tests.unit.collector.test_ingest import NOON_US, Place, record

NOON = datetime.fromtimestamp(NOON_US / 1e6, UTC)
MINUTE_US = 60_000_000
TWO = (Part("thumbs", 1.0, "up"), Part("comment", comment="nice"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON + timedelta(minutes=2))


def call(number: int, endpoint: str = "chat", at_us: int = NOON_US, **fields: Any) -> Record:
    return record(id_at(at_us, b"%d" % number), endpoint, request_time_us=at_us, **fields)


def said(number: int, *parts: Part, **fields: Any) -> Record:
    return feedback(number, *(parts or TWO), endpoint=UNROUTED, **fields)


def matching(place: Place, clock: ManualClock, catalog: Catalog | None = None) -> FeedbackMatching:
    return FeedbackMatching(catalog or place.catalog(), clock, wait=timedelta(days=1))


def of(place: Place, endpoint: str) -> list[tuple[str, str | None, str]]:
    return [
        tuple(row)
        for row in rows(place, endpoint).select("feedback_id", "databricks_request_id", "name").rows()
    ]  # type: ignore[misc]


def books_add_up(place: Place) -> None:
    books = Audit(place.spools, place.catalog(), place.letters).run()
    assert books.adds_up
    assert sum(worker.removed for worker in books.workers) == 0


def test_by_request_id_over_all_endpoints(place: Place, clock: ManualClock) -> None:
    chat, code = call(0), call(1, "code")
    place.spool(
        [
            chat,
            code,
            said(0, request_id=code.request_id),
            said(1, request_id=chat.request_id, user=None),
            said(2, request_id=id_at(NOON_US, b"nobody's")),
        ]
    )
    place.drain()
    job = matching(place, clock)
    assert job.run() == MatchingSummary(moved=2, waiting=1)
    assert job.moved == 2
    assert of(place, "code") == [("f-0", code.request_id, "thumbs"), ("f-0", code.request_id, "comment")]
    assert of(place, "chat") == [("f-1", chat.request_id, "thumbs"), ("f-1", chat.request_id, "comment")]
    assert [name for name, *_ in of(place, UNROUTED)] == ["f-2", "f-2"]
    moved = rows(place, "code").row(0, named=True)
    assert (moved["endpoint"], moved["request_time"], moved["request_date"]) == ("code", NOON, NOON.date())
    assert (moved["source_id"], moved["value"], moved["label"]) == ("ada", 1.0, "up")
    books_add_up(place)
    assert job.run() == MatchingSummary(moved=0, waiting=1)
    place.drain()
    assert len(of(place, "code")) == 2, "a collector that reads the spool again adds nothing"
    books_add_up(place)


def test_feedback_that_comes_before_its_record_waits_and_is_looked_for_ever_less_often(
    place: Place, clock: ManualClock
) -> None:
    late = call(0, "code")
    place.spool([said(0, request_id=late.request_id)])
    place.drain()
    job = matching(place, clock)
    assert job.run().waiting == 1
    place.spool([late])
    place.drain()
    assert job.run().moved == 0, "not due: the feedback is a minute old, and was looked for at that age"
    clock.advance(59)
    assert job.run().moved == 0
    clock.advance(2)
    assert job.run() == MatchingSummary(moved=1, waiting=0)
    assert len(of(place, "code")) == 2


def test_what_is_not_found_in_time_is_told_by_the_endpoint_that_was_named(
    place: Place, clock: ManualClock
) -> None:
    place.spool(
        [
            said(0, request_id=id_at(NOON_US, b"unknown")),
            said(1, request_id=None, client_request_id="c", named_endpoint="chat"),
            said(2, request_id=None, client_request_id="d", named_endpoint="chat"),
        ]
    )
    place.drain()
    job = matching(place, clock)
    assert job.run() == MatchingSummary(moved=0, waiting=3)
    clock.advance(86_400)
    assert job.run() == MatchingSummary(moved=0, waiting=0, unmatched={"": 1, "chat": 2})
    assert len(of(place, UNROUTED)) == 6, "nothing is lost"


def test_by_the_callers_own_id_the_last_call_before_the_feedback_is_meant(
    place: Place, clock: ManualClock
) -> None:
    first = call(0, "code", NOON_US - MINUTE_US, client_request_id="order-7")
    retry = call(1, "chat", NOON_US - MINUTE_US // 2, client_request_id="order-7")
    mirror = call(
        2,
        "chat",
        NOON_US - MINUTE_US // 3,
        client_request_id="order-7",
        is_shadow=True,
        shadow_of=retry.request_id,
    )
    later = call(3, "chat", NOON_US + 10 * MINUTE_US, client_request_id="order-7")
    old = call(4, "chat", NOON_US - 6 * 24 * 60 * MINUTE_US, client_request_id="old")
    place.spool(
        [
            *(first, retry, mirror, later, old),
            said(0, request_id=None, client_request_id="order-7"),
            said(1, request_id=None, client_request_id="order-7", named_endpoint="code"),
            said(2, request_id=None, client_request_id="old", named_endpoint="no such endpoint"),
        ]
    )
    place.drain()
    job = matching(place, clock)
    assert job.run() == MatchingSummary(moved=2, waiting=1)
    assert {(name, about) for name, about, _ in of(place, "chat")} == {("f-0", retry.request_id)}
    assert {(name, about) for name, about, _ in of(place, "code")} == {("f-1", first.request_id)}
    for pause_s in (3_600, 7_200):  # further back with each look
        clock.advance(pause_s)
        job.run()
    assert {(name, about) for name, about, _ in of(place, "chat")} == {
        ("f-0", retry.request_id),
        ("f-2", old.request_id),
    }
    books_add_up(place)


class Killed(Exception):
    pass


class StoppingTable(Table):
    """Does something before or after the next append."""

    def __init__(self, table: Table) -> None:
        super().__init__(table.uri, table.schema, time_column="feedback_time")
        self.before: Any = None
        self.after: Any = None

    def append(self, rows: pa.Table | pl.DataFrame, **options: Any) -> int:
        if self.before is not None:
            self.before()
        version = super().append(rows, **options)
        if self.after is not None:
            self.after()
        return version


class StoppingCatalog(Catalog):
    """The same catalog with such a feedback table of ``chat``."""

    def __init__(self, catalog: Catalog) -> None:
        self._under = catalog
        self.feedback = StoppingTable(catalog.tables("chat").feedback)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self._under.endpoints

    def refresh(self) -> None:
        self._under.refresh()

    def tables(self, endpoint: str) -> EndpointTables:
        found = self._under.tables(endpoint)
        if endpoint != "chat":
            return found
        return EndpointTables(
            found.payload,
            found.scores,
            found.profiles,
            found.drift,
            found.sketches,
            self.feedback,
            found.embeddings,
            found.labels,
        )


def spooled_for_chat(place: Place, count: int = 3) -> Sequence[Record]:
    calls = [call(number) for number in range(count)]
    place.spool([*calls, *(said(number, request_id=calls[number].request_id) for number in range(count))])
    place.drain()
    return calls


def kill() -> None:
    raise Killed


def test_a_run_that_was_killed_between_the_two_commits_moves_nothing_twice(
    place: Place, clock: ManualClock
) -> None:
    spooled_for_chat(place)
    catalog = StoppingCatalog(place.catalog())
    catalog.feedback.after = kill
    with pytest.raises(Killed):
        matching(place, clock, catalog).run()
    assert (len(of(place, "chat")), len(of(place, UNROUTED))) == (6, 6)
    books_add_up(place)
    assert matching(place, clock).run() == MatchingSummary(moved=3, waiting=0)
    assert (len(of(place, "chat")), len(of(place, UNROUTED))) == (6, 0)
    books_add_up(place)


def test_two_that_move_at_once_do_not_add_the_same_twice(place: Place, clock: ManualClock) -> None:
    spooled_for_chat(place)
    catalog = StoppingCatalog(place.catalog())

    def another() -> None:
        catalog.feedback.before = None
        assert matching(place, clock).run().moved == 3

    catalog.feedback.before = another
    with pytest.raises(Unavailable, match=APPLICATION_ID):
        matching(place, clock, catalog).run()
    assert (len(of(place, "chat")), len(of(place, UNROUTED))) == (6, 0)
    books_add_up(place)


def test_what_somebody_deletes_while_it_moves_does_not_come_back(place: Place, clock: ManualClock) -> None:
    spooled_for_chat(place)
    catalog = StoppingCatalog(place.catalog())

    def forget() -> None:
        assert delete_keys(place.catalog().tables(UNROUTED).feedback, "feedback_id", ["f-1"]) == 2

    catalog.feedback.before = forget
    assert matching(place, clock, catalog).run().moved == 2
    assert {name for name, *_ in of(place, "chat")} == {"f-0", "f-2"}
    assert of(place, UNROUTED) == []
    books = Audit(place.spools, place.catalog(), place.letters).run()
    assert books.adds_up
    assert books.workers[0].removed == 1


def test_an_id_that_its_sender_chose_twice_moves_only_what_was_found(
    place: Place, clock: ManualClock
) -> None:
    calls = spooled_for_chat(place, 1)
    again = feedback(0, Part("thumbs", 0.0, "down"), endpoint=UNROUTED, request_id=calls[0].request_id)
    catalog = StoppingCatalog(place.catalog())

    def a_repeat_arrives() -> None:
        catalog.feedback.before = None
        place.spool([again])
        place.drain()

    catalog.feedback.before = a_repeat_arrives
    assert matching(place, clock, catalog).run().moved == 1
    assert [name for name, *_ in of(place, UNROUTED)] == ["f-0"], "the repeat is still there"
    assert matching(place, clock).run().moved == 1
    assert [name for *_, name in of(place, "chat")] == ["thumbs", "comment", "thumbs"]
    books_add_up(place)


def test_a_table_that_cannot_be_read_holds_up_what_it_might_have(place: Place, clock: ManualClock) -> None:
    known = call(0, client_request_id="mine")
    place.spool(
        [
            known,
            call(1, "code"),
            said(0, request_id=known.request_id),
            said(1, request_id=None, client_request_id="mine"),
        ]
    )
    place.drain()
    folder = Path(place.catalog().tables("code").payload.uri)
    hidden = [path.rename(path.with_suffix(".away")) for path in folder.rglob("*.parquet")]
    job = matching(place, clock)
    with pytest.raises(Unavailable, match="code_payload"):
        job.run()
    assert {name for name, *_ in of(place, "chat")} == {"f-0"}
    for path in hidden:
        path.rename(path.with_suffix(".parquet"))
    assert job.run().moved == 1
    assert {name for name, *_ in of(place, "chat")} == {"f-0", "f-1"}


def test_there_is_nothing_to_do_without_feedback(place: Place, clock: ManualClock) -> None:
    assert matching(place, clock).run() == MatchingSummary(moved=0, waiting=0)
