"""Feedback in the spool becomes rows of the feedback tables exactly once, and the books know of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from deltalake import DeltaTable

from collector.audit import Audit
from collector.deletion import delete_keys
from collector.feedback_record import Feedback, Part, feedback_record
from collector.record import UNROUTED, Record
from collector.replay import Replay, State
from servelens.identifiers import id_at
from tests.unit.collector.test_ingest import NOON_US, Place, record

ABOUT = id_at(NOON_US, b"a call")


def feedback(number: int, *parts: Part, endpoint: str = "chat", **fields: Any) -> Record:
    """Feedback number so and so, on one call."""
    said = Feedback(list(parts) or [Part("thumbs", 1.0, "up")], fields.pop("request_id", ABOUT))
    given: dict[str, Any] = {"time_us": NOON_US + 60_000_000 + number, "user": "ada", **fields}
    return feedback_record(said, feedback_id=f"f-{number}", endpoint=endpoint, **given)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def rows(place: Place, endpoint: str = "chat") -> pl.DataFrame:
    return (
        place.catalog().tables(endpoint).feedback.scan().sort("worker_id", "spool_offset", "part").collect()
    )


def test_each_part_is_a_row_that_says_where_it_comes_from(place: Place) -> None:
    given = feedback(
        0,
        Part("thumbs", 0.0, "down"),
        Part("comment", comment="wrong"),
        Part("ground_truth", label="Paris"),
        tags={"screen": "chat"},
        requester="web",
    )
    worker = place.spool([record("r0"), given, feedback(1, endpoint="code")])
    place.drain()
    assert place.ids() == ["r0"], "feedback is no invocation"
    found = rows(place)
    assert found.select("name", "value", "label", "comment", "part").rows() == [
        ("thumbs", 0.0, "down", None, 0),
        ("comment", None, None, "wrong", 1),
        ("ground_truth", None, "Paris", None, 2),
    ]
    first = found.row(0, named=True)
    moment = datetime.fromtimestamp(NOON_US / 1e6, UTC)
    assert first["databricks_request_id"] == ABOUT
    assert (first["request_time"], first["request_date"]) == (moment, moment.date())
    assert (first["feedback_time"] - moment).total_seconds() == 60
    assert (first["endpoint"], first["source"], first["source_id"]) == ("chat", "user", "ada")
    assert (first["worker_id"], first["spool_offset"]) == (worker, 1)
    assert first["requester"] == "web"
    assert first["tags"] == {"screen": "chat"}
    assert rows(place, "code")["spool_offset"].to_list() == [2]


def test_a_restart_and_a_commit_that_nobody_saw_add_nothing(place: Place) -> None:
    place.spool([feedback(number, Part("thumbs", 1.0), Part("comment", comment="x")) for number in range(5)])
    assert place.drain().status.in_table == 5
    assert place.drain().status.in_table == 0
    assert rows(place).height == 10


def test_endpoints_that_do_not_exist_keep_theirs_apart(place: Place) -> None:
    place.spool(
        [
            feedback(0, endpoint="gone"),
            feedback(1, endpoint=UNROUTED, named_endpoint="chat", request_id=None, client_request_id="c-1"),
        ]
    )
    place.drain()
    found = rows(place, UNROUTED)
    assert found["endpoint"].to_list() == ["gone", "chat"]
    assert found["client_request_id"].to_list() == [None, "c-1"]
    assert found["databricks_request_id"].to_list() == [ABOUT, None]
    assert found["request_time"][1] == found["feedback_time"][1]


def test_what_says_nothing_goes_to_the_dead_letter_and_can_be_replayed(place: Place) -> None:
    good = feedback(0)
    bad = msgspec.structs.replace(feedback(1), request=b'{"parts": []}')
    late = msgspec.structs.replace(feedback(3), request=json.dumps({"parts": [{"name": 7}]}).encode())
    place.spool([good, bad, feedback(2), late])
    place.spool([record("behind")], "proxy-1")
    place.drain()
    assert rows(place)["spool_offset"].to_list() == [0, 2]
    entries = list(place.letters.entries())
    assert [entry.offset for entry in entries] == [1, 3]
    assert "says nothing" in entries[0].reason
    path = place.letters.path(entries[0])
    path.write_bytes(msgspec.msgpack.encode(feedback(1, Part("score", 0.5), Part("comment", comment="ok"))))
    outcomes = {
        each.offset: each.state for each in Replay(place.letters, place.catalog(), place.spools).run()
    }
    assert outcomes == {1: State.REPLAYED, 3: State.UNREADABLE}
    assert rows(place)["spool_offset"].to_list() == [0, 1, 1, 2]


def test_the_books_count_feedback_by_record(place: Place) -> None:
    two = (Part("thumbs", 1.0), Part("comment", comment="x"))
    place.spool([record("r0"), *(feedback(number, *two) for number in range(4)), record("r1")])
    place.drain()
    books = Audit(place.spools, place.catalog(), place.letters).run()
    assert books.adds_up
    (worker,) = books.workers
    assert (worker.accepted, worker.in_table, worker.missing, worker.duplicates) == (6, 6, 0, 0)
    assert (books.rows, books.feedback_rows) == (2, 8)

    table = place.catalog().tables("chat").feedback
    held = table.scan().collect()
    table.append(held.filter(pl.col("spool_offset") == 2))
    books = Audit(place.spools, place.catalog(), place.letters).run()
    assert books.workers[0].duplicates == 2
    assert not books.adds_up


def test_feedback_that_is_gone_is_missing_and_what_was_removed_is_not(place: Place) -> None:
    two = (Part("thumbs", 1.0), Part("comment", comment="x"))
    place.spool([feedback(number, *two) for number in range(4)])
    place.drain()
    place.spool([record("behind")])
    place.drain()
    table = place.catalog().tables("chat").feedback
    assert delete_keys(table, "feedback_id", ["f-1"]) == 2
    books = Audit(place.spools, place.catalog(), place.letters).run()
    assert books.adds_up
    assert books.workers[0].removed == 1, "a record, though it has two rows"
    DeltaTable(table.uri).delete("spool_offset = 2")
    books = Audit(place.spools, place.catalog(), place.letters).run()
    assert not books.adds_up
    assert books.workers[0].missing == 1
