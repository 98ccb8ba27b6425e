"""Alerts in the SQL database, on SQLite and PostgreSQL: one incident, one notification, whoever is at it."""

from __future__ import annotations

import threading
from datetime import timedelta

from evaluators.alerts.channels.channel import Outcome
from evaluators.alerts.outbox import LEASE, Claimed, Outbox
from evaluators.alerts.overview import AlertOverview
from evaluators.alerts.silences import Silences
from evaluators.alerts.store import AlertStore
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict
from tests.unit.evaluators.alerts.rules import START, breached, clear, no_data, rule

SENT = Outcome(True, "answered 200", 200)


def test_an_incident_from_start_to_end(database: Database) -> None:
    clock = ManualClock(START)
    store, outbox = AlertStore(database, clock), Outbox(database, clock)
    overview = AlertOverview(database, clock)
    one = rule(hold=timedelta(minutes=1), sliced=True, description="naïve ☂")
    assert store.record(one, "b", breached(), list) is None
    clock.advance(60)
    assert store.record(one, "b", breached(), lambda: ["r1"]) == "fire"
    assert store.record(one, "a", no_data(), list) is None
    (incident,) = overview.incidents(open_only=True)
    assert (incident["slice"], incident["examples"], incident["description"]) == ("b", ["r1"], "naïve ☂")
    assert overview.firing() == [("toxic", "chat", "warning", 1)]
    claimed = outbox.claim("hook")
    assert claimed is not None
    assert claimed.document["kind"] == "firing"
    assert outbox.claim("hook") is None
    assert outbox.finish(claimed, SENT) == "sent"
    assert outbox.finish(claimed, Outcome(False, "late", again=True)) == "sent"
    clock.advance(60)
    assert store.record(one, "b", clear(), list) == "resolve"
    ending = outbox.claim("hook")
    assert ending is not None
    assert outbox.finish(ending, Outcome(False, "answered 500", 500, again=True)) == "waiting"
    assert overview.delivery_counts() == [("hook", "sent", 1), ("hook", "waiting", 1)]
    assert store.forget(START + timedelta(days=1)) == 0  # somebody still has to be told
    clock.advance(5)
    again = outbox.claim("hook")
    assert again is not None
    assert (again.id, again.attempt) == (ending.id, 2)
    outbox.finish(again, SENT)
    assert store.retire([]) == 2
    assert store.forget(START + timedelta(days=1)) == 1
    assert overview.incidents() == []


def test_many_schedulers_make_one_incident(database: Database) -> None:
    clock = ManualClock(START)
    store = AlertStore(database, clock)
    store.record(rule(), "", clear(), list)
    events: list[str | None] = []
    barrier = threading.Barrier(6)

    def look() -> None:
        barrier.wait(10)
        events.append(store.record(rule(), "", breached(), list))

    run_all([look] * 6)
    assert sorted(str(event) for event in events) == ["None"] * 5 + ["fire"]
    assert len(AlertOverview(database, clock).incidents()) == 1


def test_many_schedulers_that_look_for_the_first_time(database: Database) -> None:
    clock = ManualClock(START)
    store = AlertStore(database, clock)
    events: list[str | None] = []
    barrier = threading.Barrier(6)

    def look() -> None:
        barrier.wait(10)
        try:
            events.append(store.record(rule(), "", breached(), list))
        except Conflict:
            events.append(None)

    run_all([look] * 6)
    assert events.count("fire") == 1
    assert len(AlertOverview(database, clock).incidents()) == 1


def test_many_senders_claim_each_once(database: Database) -> None:
    clock = ManualClock(START)
    store, outbox = AlertStore(database, clock), Outbox(database, clock)
    for number in range(12):
        store.record(rule(name=f"r{number}"), "", breached(), list)
    claims: list[Claimed] = []
    barrier = threading.Barrier(4)

    def send() -> None:
        barrier.wait(10)
        while (claimed := outbox.claim("hook")) is not None:
            claims.append(claimed)

    run_all([send] * 4)
    assert len({claim.id for claim in claims}) == len(claims) == 12
    clock.advance(LEASE.total_seconds())
    assert outbox.claim("hook") is not None  # nobody said what came of them


def test_one_announcement_after_a_silence(database: Database) -> None:
    clock = ManualClock(START)
    store, silences = AlertStore(database, clock), Silences(database, clock)
    made = silences.add(rule="t?xic", ends_at=START + timedelta(hours=1), author="ann", reason="r")
    store.record(rule(), "", breached(), list)
    assert store.announce() == 0
    silences.end(made.id, "bob")
    barrier, told = threading.Barrier(4), list[int]()

    def announce() -> None:
        barrier.wait(10)
        told.append(store.announce())

    run_all([announce] * 4)
    assert sum(told) == 1
    assert [silence.ended_by for silence in silences.list(with_ended=True)] == ["bob"]
    assert silences.list() == []


def run_all(actions: list[object]) -> None:
    """Each in a thread of its own; what one raises fails the test."""
    errors: list[Exception] = []

    def guarded(action: object) -> None:
        assert callable(action)
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a thread's error must reach the assertion below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
