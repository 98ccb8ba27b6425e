"""API keys in the database: what is kept, what works, and what a worker sees change."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from servelens.clock import ManualClock, datetime_us
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing, Unavailable
from servelens.keys.current import CurrentKeys
from servelens.keys.store import ApiKey, KeyStore
from serving_proxy.authentication import Requester, authenticate
from serving_proxy.failure import Failure

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(database: Database, clock: ManualClock) -> KeyStore:
    return KeyStore(database, clock)


def lets_in(store: KeyStore, secret: str, clock: ManualClock) -> Requester | None:
    outcome = authenticate(store.load(), {b"x-api-key": secret.encode()}, clock.now_us())
    return None if isinstance(outcome, Failure) else outcome


def test_a_new_key_works_and_its_secret_is_nowhere(
    store: KeyStore, database: Database, clock: ManualClock
) -> None:
    assert not store.load().required
    key, secret = store.create("ada", ["admin", "invoke"], created_by="root")
    assert secret.startswith("sl-")
    assert len(secret) == 46
    assert key.scopes == ("invoke", "admin")
    assert (key.created_by, key.created_at, key.expires_at, key.revoked_at) == ("root", START, None, None)
    assert secret.startswith(key.prefix)
    assert len(key.prefix) < 10
    assert lets_in(store, secret, clock) == Requester("ada", frozenset({"invoke", "admin"}), key.id)
    with database.session(read_only=True) as session:
        kept = session.execute(text("SELECT * FROM api_keys")).all()
    assert secret not in str(kept)
    assert secret[7:] not in str(kept)
    assert store.all() == store.live() == [key]


def test_secrets_differ(store: KeyStore) -> None:
    secrets = {store.create(f"key {number}", ["invoke"])[1] for number in range(20)}
    assert len(secrets) == 20


@pytest.mark.parametrize("by_id", [True, False])
def test_a_revoked_key_is_dead_and_frees_its_name(store: KeyStore, clock: ManualClock, by_id: bool) -> None:
    key, secret = store.create("ada", ["invoke"])
    clock.advance(5)
    ended = store.revoke(key.id if by_id else "ada")
    assert ended.revoked_at == START + timedelta(seconds=5)
    assert lets_in(store, secret, clock) is None
    assert store.load().required
    assert store.live() == []
    assert store.revoke(key.id) == ended
    with pytest.raises(Missing):
        store.revoke("ada")
    again, secret = store.create("ada", ["invoke"])
    assert lets_in(store, secret, clock) is not None
    assert [each.id for each in store.live()] == [again.id]
    assert {each.id for each in store.all()} == {key.id, again.id}


def test_an_expired_key_is_dead_and_gives_its_name_up(store: KeyStore, clock: ManualClock) -> None:
    key, secret = store.create("ada", ["invoke"], lifetime=timedelta(hours=1))
    assert key.expires_at == START + timedelta(hours=1)
    (kept,) = store.load().by_digest.values()
    assert kept.expires_at_us == datetime_us(START + timedelta(hours=1))
    clock.advance(3599)
    assert lets_in(store, secret, clock) is not None
    clock.advance(1)
    assert lets_in(store, secret, clock) is None
    assert store.live() == []
    assert store.all()[0].state(clock.now()) == "expired"
    _, fresh = store.create("ada", ["invoke"])
    assert lets_in(store, fresh, clock) is not None
    assert lets_in(store, secret, clock) is None


def test_a_live_name_is_taken(store: KeyStore) -> None:
    store.create("ada", ["invoke"])
    with pytest.raises(Conflict, match="named 'ada' already"):
        store.create("ada", ["admin"])
    assert len(store.all()) == 1


def test_of_many_who_want_a_name_at_once_one_gets_it(store: KeyStore) -> None:
    outcomes: list[ApiKey | Conflict] = []
    begin = threading.Barrier(6)

    def create() -> None:
        begin.wait()
        try:
            outcomes.append(store.create("ada", ["invoke"])[0])
        except Conflict as error:
            outcomes.append(error)

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6
    assert [type(outcome) for outcome in outcomes].count(ApiKey) == 1
    assert len(store.all()) == 1


@pytest.mark.parametrize("name", ["", " ada", "ada ", "a\nb", "a\0b", "x" * 129, "\ud800"])
def test_names_that_are_refused(store: KeyStore, name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        store.create(name, ["invoke"])
    assert refusal.value.field == "name"


@pytest.mark.parametrize("name", ["x" * 128, "Müllers Notebook (2)", "ada@example.org"])
def test_names_that_are_fine(store: KeyStore, name: str) -> None:
    assert store.create(name, ["invoke"])[0].name == name
    assert store.all()[0].name == name


@pytest.mark.parametrize("scopes", [[], ["root"], ["invoke", "Admin"]])
def test_scopes_that_are_refused(store: KeyStore, scopes: Sequence[str]) -> None:
    with pytest.raises(Invalid) as refusal:
        store.create("ada", scopes)
    assert refusal.value.field == "scopes"
    assert "invoke, admin, annotate" in str(refusal.value)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), timedelta.max])
def test_lifetimes_that_are_refused(store: KeyStore, lifetime: timedelta) -> None:
    with pytest.raises(Invalid):
        store.create("ada", ["invoke"], lifetime=lifetime)


def test_the_generation_changes_with_every_change_and_only_then(store: KeyStore, clock: ManualClock) -> None:
    seen = [store.generation()]

    def changed() -> bool:
        seen.append(store.generation())
        return seen[-1] not in seen[:-1]

    key, _ = store.create("ada", ["invoke"])
    assert changed()
    assert not changed()
    store.create("bob", ["invoke"], lifetime=timedelta(seconds=10))
    assert changed()
    clock.advance(9)
    assert not changed()
    clock.advance(1)
    assert changed()
    store.revoke(key.id)
    assert changed()
    store.revoke(key.id)
    assert not changed()
    store.create("ada", ["invoke"])
    assert changed()


def test_current_keys_are_the_same_object_until_something_changes(
    store: KeyStore, database: Database
) -> None:
    current = CurrentKeys(store)
    first = current()
    assert current() is first
    store.create("ada", ["invoke"])
    second = current()
    assert second is not first
    assert second.required
    store.revoke("ada")
    assert not current().by_digest
    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE api_keys RENAME TO elsewhere"))
    with pytest.raises(Unavailable):
        current()
