"""Label schemas in the database: versions that only grow, the settings file and the API, writers at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, update

from relabel.label_schema import LabelSchema, default_schema
from relabel.models import SchemaRow
from relabel.schema_definition import definition_of
from relabel.schema_store import SchemaStore
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing
from tests.relabel_cases import START


def asks(*names: str, **more: Any) -> dict[str, Any]:
    return {"fields": [{"name": name, "type": "text"} for name in names], **more}


def names(schema: LabelSchema) -> list[str]:
    return [field.name for field in schema.fields]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(database: Database, clock: ManualClock) -> SchemaStore:
    return SchemaStore(database, clock)


def test_an_endpoint_has_the_default_until_it_has_another(store: SchemaStore) -> None:
    assert store.current("chat") == default_schema()
    assert store.version("chat", 0) == default_schema()
    assert store.versions("chat") == []
    assert store.get("chat").to_dict()["source"] == "default"


def test_versions_grow_and_stay(store: SchemaStore, database: Database, clock: ManualClock) -> None:
    first = store.put("chat", asks("a"), by="ann")
    clock.advance(60)
    second = store.put("chat", asks("a", "b", annotators=3), by="bob")
    assert (first.version, second.version) == (1, 2)
    assert store.current("chat") == second
    assert names(store.version("chat", 1)) == ["a"]
    assert names(SchemaStore(database, clock).version("chat", 2)) == ["a", "b"]
    newest, oldest = store.versions("chat")
    assert (newest.created_by, oldest.created_by) == ("bob", "ann")
    assert (newest.schema, oldest.created_at) == (second, START)
    assert newest.to_dict() == {
        "endpoint": "chat",
        "version": 2,
        "source": "api",
        "created_by": "bob",
        "created_at": "2026-03-01T12:01:00+00:00",
        "schema": definition_of(second),
    }
    assert store.current("code") == default_schema()


def test_a_version_that_nobody_made_is_missing(store: SchemaStore) -> None:
    store.put("chat", asks("a"), by="ann")
    for version in (-1, 3, 2**40):
        with pytest.raises(Missing, match="Use 0 to 1"):
            store.version("chat", version)
        with pytest.raises(Missing, match="It has only the default one, 0"):
            store.version("code", version)


def test_the_same_again_makes_no_version(store: SchemaStore) -> None:
    assert store.put("chat", definition_of(default_schema()), by="ann").version == 0
    store.put("chat", asks("a"), by="ann")
    again = store.put("chat", {**asks("a"), "annotators": 1, "adjudicate": "disagreement"}, by="bob")
    assert again.version == 1
    assert store.put("chat", asks("b"), by="bob").version == 2
    assert store.put("chat", asks("a"), by="bob").version == 3


def test_a_wrong_definition_changes_nothing(store: SchemaStore) -> None:
    with pytest.raises(Invalid, match=r"fields\[0\].options"):
        store.put("chat", {"fields": [{"name": "a", "type": "choice"}]}, by="ann")
    with pytest.raises(Invalid, match="fields"):
        store.apply_file({"chat": asks("a"), "code": {"fields": []}})
    assert store.current("chat") == default_schema()


def test_a_writer_may_say_which_version_it_has_read(store: SchemaStore) -> None:
    store.put("chat", asks("a"), by="ann", expected_version=0)
    with pytest.raises(Conflict) as caught:
        store.put("chat", asks("b"), by="bob", expected_version=0)
    assert str(caught.value) == (
        "If-Match: the label schema of 'chat' is at version 1, not 0. Read it again."
    )
    assert names(store.put("chat", asks("b"), by="bob", expected_version=1)) == ["b"]


def test_a_schema_of_the_api_stays_until_the_file_changes(store: SchemaStore) -> None:
    store.apply_file({"chat": asks("file")})
    assert names(store.current("chat")) == ["file"]
    assert store.get("chat").to_dict()["source"] == "file"
    store.put("chat", asks("api"), by="ann")
    store.apply_file({"chat": asks("file")})
    assert names(store.current("chat")) == ["api"]
    store.apply_file({"chat": asks("file", "more")})
    assert names(store.current("chat")) == ["file", "more"]
    assert [stored.from_file for stored in store.versions("chat")] == [True, False, True]


def test_what_the_file_says_is_known_also_where_the_api_said_it_first(store: SchemaStore) -> None:
    store.put("chat", asks("a"), by="ann")
    store.apply_file({"chat": asks("a")})
    store.put("chat", asks("b"), by="ann")
    store.apply_file({"chat": asks("a")})
    assert names(store.current("chat")) == ["b"]


def test_a_block_that_is_gone_gives_the_default_back(store: SchemaStore) -> None:
    store.apply_file({"chat": asks("a"), "code": asks("a")})
    store.put("code", asks("api"), by="ann")
    store.apply_file({})
    assert store.current("chat") == LabelSchema(**{**_parts(default_schema()), "version": 2})
    assert names(store.current("code")) == ["api"]
    store.apply_file({})
    assert len(store.versions("chat")) == 2
    store.apply_file({"chat": asks("a")})
    assert names(store.current("chat")) == ["a"]


def _parts(schema: LabelSchema) -> dict[str, Any]:
    return {name: getattr(schema, name) for name in LabelSchema.__slots__}


def test_the_file_may_give_the_default_itself(store: SchemaStore) -> None:
    store.apply_file({"chat": definition_of(default_schema())})
    assert store.current("chat").version == 1
    store.put("chat", asks("api"), by="ann")
    store.apply_file({"chat": definition_of(default_schema())})
    assert names(store.current("chat")) == ["api"]


def test_what_others_store_is_seen_within_a_second(
    store: SchemaStore, database: Database, clock: ManualClock
) -> None:
    other = SchemaStore(database, clock)
    assert other.current("chat").version == 0
    store.put("chat", asks("a"), by="ann")
    assert store.current("chat").version == 1
    clock.advance(1)
    assert other.current("chat").version == 1


def test_the_database_is_not_asked_for_every_case(
    store: SchemaStore, database: Database, clock: ManualClock
) -> None:
    store.put("chat", asks("a"), by="ann")
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda _c, _u, text, *_: asked.append(text))
    for _ in range(100):
        store.current("chat")
        store.version("chat", 1)
    assert len([text for text in asked if "relabel_schemas" in text]) == 1
    clock.advance(1)
    store.current("chat")
    assert len([text for text in asked if "relabel_schemas" in text]) == 2


def test_a_schema_that_a_newer_servelens_stored_is_told(store: SchemaStore, database: Database) -> None:
    store.put("chat", asks("a"), by="ann")
    with database.session() as session:
        session.execute(update(SchemaRow).values(definition={"fields": [{"name": "a", "type": "video"}]}))
    with pytest.raises(Invalid, match=r"fields\[0\].type"):
        store.get("chat", 1)


def at_once(*actions: Callable[[], object]) -> list[object]:
    """What each gave or raised, all of them begun together."""
    gate = threading.Barrier(len(actions))
    results: list[object] = [None] * len(actions)

    def run(number: int, action: Callable[[], object]) -> None:
        gate.wait(10)
        try:
            results[number] = action()
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            results[number] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


@pytest.fixture
def stores(database_url: str, database: Database, clock: ManualClock) -> Iterator[list[SchemaStore]]:
    """Six processes' own connections to the one database."""
    assert database.engine is not None
    opened = [Database(database_url) for _ in range(6)]
    yield [SchemaStore(each, clock) for each in opened]
    for each in opened:
        each.dispose()


def test_writers_at_the_same_time_each_make_a_version(stores: list[SchemaStore]) -> None:
    results = at_once(
        *(
            lambda store=store, name=f"f{number}": store.put("chat", asks(name), by=name)
            for number, store in enumerate(stores)
        )
    )
    assert all(isinstance(result, LabelSchema) for result in results), results
    versions = stores[0].versions("chat")
    assert [stored.schema.version for stored in versions] == [6, 5, 4, 3, 2, 1]
    for result in results:
        assert isinstance(result, LabelSchema)
        assert stores[0].version("chat", result.version) == result


def test_of_writers_who_have_read_the_same_version_one_wins(stores: list[SchemaStore]) -> None:
    results = at_once(
        *(
            lambda store=store, name=f"f{number}": store.put("chat", asks(name), by=name, expected_version=0)
            for number, store in enumerate(stores)
        )
    )
    won = [result for result in results if isinstance(result, LabelSchema)]
    lost = [result for result in results if isinstance(result, Conflict)]
    assert (len(won), len(lost)) == (1, 5), results
    assert stores[0].versions("chat")[0].schema == won[0]


def test_processes_that_start_together_apply_the_file_once(stores: list[SchemaStore]) -> None:
    results = at_once(*(lambda store=store: store.apply_file({"chat": asks("a")}) for store in stores))
    assert results == [None] * 6
    assert len(stores[0].versions("chat")) == 1
