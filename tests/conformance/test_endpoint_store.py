"""Endpoints in the database: changes in one order, the file reconciled like `kubectl apply`, nothing lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from servelens.clock import ManualClock
from servelens.control.proxy_workers import GONE_S, ProxyWorkers, WorkerState
from servelens.control.store import EndpointExists, EndpointStore
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.control.table_names import StoredTableNames
from servelens.database import Database
from servelens.endpoint_settings import EndpointSettings
from servelens.errors import Conflict, InvalidSettings, Missing
from servelens.secret_references import MASK

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def endpoint(name: str = "chat", url: str = "http://gpu-1:8000", **more: Any) -> EndpointSettings:
    entity = {"name": "champion", "backend": {"urls": [url], "api_key": "sk-secret"}}
    return EndpointSettings.model_validate({"name": name, "config": {"served_entities": [entity]}, **more})


def changed(stored: StoredEndpoint, **changes: Any) -> EndpointSettings:
    return EndpointSettings.model_validate({**stored.settings, **changes})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(database: Database, clock: ManualClock) -> EndpointStore:
    return EndpointStore(database, clock)


def test_an_endpoint_is_created_changed_and_deleted(store: EndpointStore, clock: ManualClock) -> None:
    assert store.generation() == 0
    created = store.create(endpoint(), by="ann", description="first")
    assert (created.config_version, created.creator, created.source) == (1, "ann", "api")
    assert created.description == "first"
    assert created.table == ("servelens", "default", "chat")
    assert store.generation() == 1
    clock.advance(60)
    updated = store.update(
        "chat", lambda old: changed(old, payload_limit_bytes=10), by="bob", action="config"
    )
    assert (updated.config_version, updated.creator) == (2, "ann")
    assert updated.id == created.id
    assert (updated.created_at, updated.updated_at) == (START, START + timedelta(seconds=60))
    assert store.get("chat").parsed().payload_limit_bytes == 10
    store.delete("chat", by="ann", check=lambda _: None)
    assert store.all() == []
    with pytest.raises(Missing, match="chat"):
        store.get("chat")
    history = [(row.action, row.changed_by, row.config_version) for row in store.history("chat")]
    assert history == [("create", "ann", 1), ("config", "bob", 2), ("delete", "ann", 2)]


def test_only_a_change_of_what_is_served_makes_a_version(store: EndpointStore) -> None:
    store.create(endpoint(), by="ann")
    tagged = store.update("chat", lambda old: changed(old, tags=[{"key": "team"}]), by="ann", action="tags")
    assert (tagged.config_version, tagged.config_generation, store.generation()) == (1, 1, 2)
    same = store.update("chat", lambda old: changed(old), by="ann", action="config")
    assert (same, store.generation()) == (tagged, 2)


def test_no_secret_is_in_what_is_shown_or_in_the_history(store: EndpointStore) -> None:
    created = store.create(endpoint(), by="ann")
    assert created.settings["config"]["served_entities"][0]["backend"]["api_key"] == "sk-secret"
    for shown in (created.shown, store.history("chat")[0].settings):
        assert "sk-secret" not in str(shown)
        assert shown["config"]["served_entities"][0]["backend"]["api_key"] == MASK


def test_a_name_is_taken_until_it_is_deleted_and_its_versions_go_on(store: EndpointStore) -> None:
    first = store.create(endpoint(), by="ann")
    with pytest.raises(EndpointExists):
        store.create(endpoint(), by="bob")
    store.delete("chat", by="ann", check=lambda _: None)
    again = store.create(endpoint(url="http://gpu-2:8000"), by="bob")
    assert (again.config_version, again.creator, again.table) == (2, "bob", first.table)
    assert again.id != first.id
    assert again.created_generation == store.generation()


def test_an_endpoint_keeps_its_table_and_shares_it_with_nobody(store: EndpointStore) -> None:
    store.create(endpoint(ai_gateway={"inference_table_config": {"table_name_prefix": "logs"}}), by="ann")
    with pytest.raises(InvalidSettings, match=r"servelens\.default\.logs' belongs to 'chat'"):
        store.create(endpoint("logs"), by="ann")
    move = {"inference_table_config": {"table_name_prefix": "elsewhere"}}
    with pytest.raises(InvalidSettings, match="stays so"):
        store.update("chat", lambda old: changed(old, ai_gateway=move), by="ann", action="ai_gateway")
    kept = store.update("chat", lambda old: changed(old, ai_gateway={}), by="ann", action="ai_gateway")
    assert kept.table.prefix == "logs"
    with pytest.raises(InvalidSettings, match="reach no endpoint"):
        store.create(endpoint("unrouted"), by="ann")
    assert [each.name for each in store.all()] == ["chat"]


def test_table_names_are_followed_and_outlive_their_endpoints(store: EndpointStore) -> None:
    names = StoredTableNames(store)
    assert names() == {}
    assert names() is None
    store.create(endpoint(), by="ann")
    store.delete("chat", by="ann", check=lambda _: None)
    assert names() == {"chat": ("servelens", "default", "chat")}


def test_whoever_has_read_an_older_version_is_told(store: EndpointStore) -> None:
    store.create(endpoint(), by="ann")
    change = {"by": "ann", "action": "config", "expected_version": 1}
    store.update("chat", lambda old: changed(old, payload_limit_bytes=1), **change)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="config_version 2, not 1"):
        store.update("chat", lambda old: changed(old, payload_limit_bytes=2), **change)  # type: ignore[arg-type]


def test_a_refused_change_changes_nothing(store: EndpointStore) -> None:
    store.create(endpoint(), by="ann")

    def refuse(_: StoredEndpoint) -> None:
        raise Conflict("in use")

    with pytest.raises(Conflict, match="in use"):
        store.delete("chat", by="ann", check=refuse)
    assert store.generation() == 1
    assert len(store.history("chat")) == 1


def test_writers_at_once_lose_nothing_and_have_an_order(store: EndpointStore) -> None:
    count = 24
    store.create(endpoint(), by="ann")
    start = threading.Barrier(8)

    def tag(key: int) -> None:
        if key < 8:
            start.wait(30)
        store.update(
            "chat",
            lambda old: changed(old, tags=[*old.settings.get("tags", []), {"key": str(key)}]),
            by="ann",
            action="tags",
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tag, range(count)))
    assert {tag["key"] for tag in store.get("chat").settings["tags"]} == {str(key) for key in range(count)}
    assert store.generation() == 1 + count
    assert [row.generation for row in store.history("chat")] == list(range(1, 2 + count))


@pytest.fixture
def reader(database_url: str) -> Iterator[EndpointStore]:
    """The same database as another process sees it."""
    other = Database(database_url)
    yield EndpointStore(other, ManualClock(START))
    other.dispose()


def test_a_reader_that_has_seen_a_number_has_seen_everything_up_to_it(
    store: EndpointStore, reader: EndpointStore
) -> None:
    store.create(endpoint("e"), by="ann")
    done = threading.Event()
    missed: list[tuple[int, int]] = []

    def read() -> None:
        while not done.is_set():
            generation, endpoints = reader.state()
            newest = max(each.config_generation for each in endpoints)
            if newest < generation:
                missed.append((generation, newest))

    with ThreadPoolExecutor(5) as pool:
        reading = pool.submit(read)

        def change(limit: int) -> None:
            store.update("e", lambda old: changed(old, payload_limit_bytes=limit), by="ann", action="config")

        list(pool.map(change, range(1, 60)))
        done.set()
        reading.result(30)
    assert missed == []


def test_the_file_is_applied_once_and_a_change_by_api_stays_until_the_file_changes(
    store: EndpointStore,
) -> None:
    assert store.apply_file([endpoint(), endpoint("embed")], by="servelens.yaml") == ["chat", "embed"]
    assert store.get("chat").source == "file"
    generation = store.generation()
    assert store.apply_file([endpoint(), endpoint("embed")], by="servelens.yaml") == []
    assert store.generation() == generation
    store.update("chat", lambda old: changed(old, payload_limit_bytes=1), by="ann", action="config")
    assert store.apply_file([endpoint(), endpoint("embed")], by="servelens.yaml") == []
    assert store.get("chat").settings["payload_limit_bytes"] == 1
    assert store.apply_file([endpoint(url="http://gpu-9:1"), endpoint("embed")], by="f") == ["chat"]
    assert "payload_limit_bytes" not in store.get("chat").settings
    assert store.get("chat").config_version == 3


def test_what_leaves_the_file_is_deleted_and_comes_back_with_it(store: EndpointStore) -> None:
    store.create(endpoint("own"), by="ann")
    store.apply_file([endpoint()], by="f")
    assert store.apply_file([], by="f") == ["chat"]
    assert [each.name for each in store.all()] == ["own"]
    assert store.apply_file([], by="f") == []
    assert store.apply_file([endpoint()], by="f") == ["chat"]
    assert store.get("chat").config_version == 2


def test_an_endpoint_of_the_file_deleted_by_api_stays_deleted_until_its_block_changes(
    store: EndpointStore,
) -> None:
    store.apply_file([endpoint()], by="f")
    store.delete("chat", by="ann", check=lambda _: None)
    assert store.apply_file([endpoint()], by="f") == []
    assert store.all() == []
    assert store.apply_file([endpoint(url="http://gpu-2:1")], by="f") == ["chat"]
    assert store.get("chat").source == "file"


def test_the_file_takes_over_an_endpoint_made_by_api(store: EndpointStore) -> None:
    created = store.create(endpoint(), by="ann")
    assert store.apply_file([endpoint(url="http://gpu-2:1")], by="f") == ["chat"]
    taken = store.get("chat")
    assert (taken.source, taken.id, taken.creator) == ("file", created.id, "ann")


def test_a_wrong_block_applies_none_of_the_file(store: EndpointStore) -> None:
    store.create(endpoint("taken"), by="ann")
    clash = endpoint("other", ai_gateway={"inference_table_config": {"table_name_prefix": "taken"}})
    with pytest.raises(InvalidSettings, match="belongs to 'taken'"):
        store.apply_file([endpoint(), clash], by="f")
    assert [each.name for each in store.all()] == ["taken"]
    assert store.generation() == 1


def test_workers_that_start_together_apply_the_file_once(database_url: str, database: Database) -> None:
    blocks = [endpoint(f"e{number}") for number in range(5)]
    start = threading.Barrier(6)

    def apply(_: int) -> list[str]:
        own = Database(database_url)
        try:
            start.wait(30)
            return EndpointStore(own, ManualClock(START)).apply_file(blocks, by="f")
        finally:
            own.dispose()

    with ThreadPoolExecutor(6) as pool:
        applied = [names for names in pool.map(apply, range(6)) if names]
    assert applied == [[f"e{number}" for number in range(5)]]
    store = EndpointStore(database, ManualClock(START))
    assert store.generation() == 1
    assert all(each.config_version == 1 for each in store.all())


def test_the_version_that_a_worker_behind_still_serves(store: EndpointStore) -> None:
    store.create(endpoint(), by="ann")
    store.create(endpoint("other"), by="ann")
    store.update("chat", lambda old: changed(old, payload_limit_bytes=1), by="ann", action="config")
    assert store.served_before("chat", 0) is None
    for generation, version in ((1, 1), (2, 1), (3, 2)):
        row = store.served_before("chat", generation)
        assert row is not None
        assert row.config_version == version


def test_workers_report_what_they_serve_and_the_silent_ones_are_dead(
    database: Database, clock: ManualClock
) -> None:
    workers = ProxyWorkers(database, clock)
    workers.report(WorkerState("a/proxy-0", 3))
    workers.report(WorkerState("a/proxy-1", 2, {"chat": "no secret"}))
    assert workers.live() == [WorkerState("a/proxy-0", 3), WorkerState("a/proxy-1", 2, {"chat": "no secret"})]
    clock.advance(GONE_S - 1)
    workers.report(WorkerState("a/proxy-1", 3))
    clock.advance(2)
    assert workers.live() == [WorkerState("a/proxy-1", 3)]
    workers.leave("a/proxy-1")
    assert workers.live() == []
