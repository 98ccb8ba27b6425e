"""Who is let in, and what those are told who are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import Depends, FastAPI

from servelens.clock import ManualClock
from servelens.errors import InvalidSettings
from serving_proxy.access import require
from serving_proxy.authentication import (
    NO_KEYS,
    Key,
    Keys,
    Requester,
    authenticate,
    check_listen,
    digest_of,
)
from serving_proxy.failure import Failure

NOW = 1_000_000
ADA = Requester("ada", frozenset({"invoke"}), "k1")
ROOT = Requester("root", frozenset({"admin", "invoke"}), "k2")
OLD = Requester("old", frozenset({"invoke"}), "k3")
KEYS = Keys(
    {
        digest_of(b"sl-ada"): Key(ADA),
        digest_of(b"sl-root"): Key(ROOT, NOW + 1),
        digest_of(b"sl-old"): Key(OLD, NOW),
    },
    required=True,
)


def refused(fields: dict[bytes, bytes], keys: Keys = KEYS) -> Failure:
    outcome = authenticate(keys, fields, NOW)
    assert isinstance(outcome, Failure)
    return outcome


@pytest.mark.parametrize(
    "fields",
    [
        {b"authorization": b"Bearer sl-ada"},
        {b"authorization": b"bearer  sl-ada "},
        {b"x-api-key": b"sl-ada"},
        {b"api-key": b"sl-ada"},
        {b"authorization": b"Bearer sl-ada", b"x-api-key": b"sl-ada"},
    ],
)
def test_every_clients_way_of_sending_a_key(fields: dict[bytes, bytes]) -> None:
    assert authenticate(KEYS, fields, NOW) == ADA


@pytest.mark.parametrize("fields", [{}, {b"authorization": b"Basic eDp5"}, {b"x-api-key": b"unused"}])
def test_nobody_is_asked_before_the_first_key(fields: dict[bytes, bytes]) -> None:
    assert authenticate(NO_KEYS, fields, NOW) is None


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "needs an API key"),
        ({b"authorization": b""}, "Bearer"),
        ({b"authorization": b"Bearer "}, "needs an API key"),
        ({b"authorization": b"Basic c2wtYWRh"}, "Bearer"),
        ({b"authorization": b"sl-ada"}, "Bearer"),
        ({b"authorization": b"Bearer sl-adA"}, "unknown"),
        ({b"authorization": b"Bearer \xff\xfe"}, "unknown"),
        ({b"x-api-key": b"sl-old"}, "expired"),
    ],
)
def test_a_missing_or_wrong_key_is_401_and_names_the_fix(fields: dict[bytes, bytes], word: str) -> None:
    failure = refused(fields)
    assert (failure.status, failure.error_type) == (401, "unauthenticated")
    assert word in failure.message
    assert b"www-authenticate: Bearer" in failure.head_lines
    assert "sl-adA" not in failure.message  # it may be the secret of something else


def test_the_message_names_the_command_that_makes_a_key() -> None:
    assert "servelens keys create NAME --scope invoke" in refused({}).message


@pytest.mark.parametrize("other", [b"x-api-key", b"api-key"])
def test_two_different_credentials_are_refused(other: bytes) -> None:
    failure = refused({b"authorization": b"Bearer sl-ada", other: b"sl-root"})
    assert failure.status == 401
    assert "two different" in failure.message
    assert "two different" in refused({b"x-api-key": b"sl-ada", b"api-key": b"sl-root"}).message


def test_all_keys_revoked_still_needs_one() -> None:
    assert refused({b"x-api-key": b"sl-ada"}, Keys({}, required=True)).status == 401


def test_a_key_ends_at_its_expiry() -> None:
    fields = {b"x-api-key": b"sl-root"}
    assert authenticate(KEYS, fields, NOW) == ROOT
    outcome = authenticate(KEYS, fields, NOW + 1)
    assert isinstance(outcome, Failure)
    assert "'root' has expired" in outcome.message


def test_a_scope_that_the_key_lacks_is_403() -> None:
    outcome = authenticate(KEYS, {b"x-api-key": b"sl-ada"}, NOW, "admin")
    assert isinstance(outcome, Failure)
    assert (outcome.status, outcome.error_type) == (403, "forbidden")
    assert "'admin'" in outcome.message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    check_listen(host, NO_KEYS)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.org", "::ffff:127.0.0.1"])
def test_beyond_loopback_needs_keys(host: str) -> None:
    check_listen(host, Keys({}, required=True))
    with pytest.raises(InvalidSettings) as refusal:
        check_listen(host, NO_KEYS)
    assert refusal.value.field == "proxy.host"
    assert "servelens keys create" in str(refusal.value)
    with pytest.raises(InvalidSettings, match=r"console\.host"):
        check_listen(host, NO_KEYS, "console.host")


async def test_the_dependency_of_other_routes() -> None:
    clock = ManualClock(datetime(1970, 1, 1, tzinfo=UTC))
    current = [NO_KEYS]
    app = FastAPI()
    admin = Depends(require("admin", lambda: current[0], clock))

    @app.get("/")
    def who(requester: Requester | None = admin) -> str:
        return requester.name if requester else "anybody"

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
        assert (await client.get("/")).json() == "anybody"
        current[0] = KEYS
        nobody = await client.get("/")
        assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
        assert (await client.get("/", headers={"x-api-key": "sl-ada"})).status_code == 403
        root = {"authorization": "Bearer sl-root"}
        assert (await client.get("/", headers=root)).json() == "root"
        clock.advance(timedelta(hours=1).total_seconds())
        assert (await client.get("/", headers=root)).status_code == 401
