"""Who may send events, and by which rules: API keys and endpoints of the database, followed as they change."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from collector.intake.refusal import Refusal
from collector.record import UNROUTED, Record
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.intake import IntakeDoor, build_intake
from servelens.assembly.keys import check_addresses
from servelens.clock import SystemClock
from servelens.control.store import EndpointStore
from servelens.database import Database
from servelens.errors import InvalidSettings
from servelens.keys.current import CurrentKeys
from servelens.keys.store import KeyStore
from servelens.settings import Settings
from servelens.settings_file import load_settings

CLOCK = SystemClock()


def block(name: str, **gateway: object) -> dict[str, object]:
    entity = {"name": f"{name}-1", "entity_version": "4", "backend": {"urls": ["http://127.0.0.1:9"]}}
    table = {"inference_table_config": gateway}
    return {
        "name": name,
        "config": {"served_entities": [entity]},
        "ai_gateway": table,
        "payload_limit_bytes": 2_000,
    }


class Place:
    """A settings file, its database, and what is built of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = self.write(host="127.0.0.1")
        self.database: Database = build_database(self.settings)
        self.store: EndpointStore = open_endpoint_store(self.settings, self.database, CLOCK)
        self.keys = KeyStore(self.database, CLOCK)

    def write(self, *blocks: dict[str, object], host: str = "127.0.0.1") -> Settings:
        config = self.folder / "servelens.yaml"
        endpoints = [block("chat"), block("hidden", redact_paths=["$.user", "$.secret"]), *blocks]
        intake = {"enabled": True, "host": host, "port": 0, "endpoints": {"team/llm": "chat"}}
        config.write_text(
            yaml.safe_dump({"data_dir": "data", "endpoints": endpoints, "collector": {"intake": intake}})
        )
        return load_settings(config)

    def door(self, host: str = "127.0.0.1") -> IntakeDoor:
        return IntakeDoor(
            self.store,
            CurrentKeys(self.keys),
            CLOCK,
            host=host,
            names=self.settings.collector.intake.endpoints,
        )

    def build(self, host: str) -> None:
        stop = threading.Event()
        stop.set()
        settings = self.write(host=host)
        build_intake(settings, self.database, self.store, CLOCK, stop).close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.database.dispose()


def record(endpoint: str, request: bytes) -> Record:
    return Record("01a20b72-c5b1-7a9b-89d0-ada7cc3835d0", 1, 200, 0, endpoint, "chat", request=request)


def refused(door: IntakeDoor, fields: dict[bytes, bytes]) -> Refusal:
    with pytest.raises(Refusal) as raised:
        door.caller(fields)
    return raised.value


def test_nobody_comes_in_before_keys_and_endpoints_are_known(place: Place) -> None:
    door = place.door()
    assert refused(door, {}).status == 503
    with pytest.raises(Refusal, match="endpoints are not known"):
        door.rules()


def test_keys_are_followed_as_they_are_made_and_revoked(place: Place) -> None:
    door = place.door()
    door.refresh()
    assert door.caller({}) is None
    _, secret = place.keys.create("kserve", ["invoke"])
    _, other = place.keys.create("person", ["annotate"])
    door.refresh()
    assert refused(door, {}).status == 401
    assert refused(door, {b"authorization": b"Bearer sl-wrong"}).status == 401
    assert refused(door, {b"authorization": f"Bearer {other}".encode()}).status == 403
    assert door.caller({b"authorization": f"Bearer {secret}".encode()}) == "kserve"
    assert door.caller({b"x-api-key": secret.encode()}) == "kserve"
    password = base64.b64encode(
        f"anybody:{secret}".encode()
    )  # as Go's client sends http://anybody:sl-…@host/
    assert door.caller({b"authorization": b"Basic " + password}) == "kserve"
    assert refused(door, {b"authorization": b"Basic !"}).status == 401
    place.keys.revoke("kserve")
    door.refresh()
    assert refused(door, {b"authorization": f"Bearer {secret}".encode()}).status == 401


def test_endpoints_are_followed_and_keep_only_what_they_may(place: Place) -> None:
    door = place.door()
    door.refresh()
    rules = door.rules()
    assert set(rules.targets) == {"chat", "hidden"}
    assert rules.target("team/llm").name == "chat"
    assert rules.target("nobody").name == UNROUTED
    entity = rules.targets["chat"].entity()
    assert (entity.name, entity.id, entity.version) == ("chat-1", "chat/chat-1/4", "4")
    body = b'{"messages": [], "user": "ada", "secret": "s3"}'
    for name in ("hidden", UNROUTED):  # what one endpoint hides is hidden where nobody knows whose it is
        kept = rules.target(name).kept(record(name, body))
        assert kept is not None
        assert b"ada" not in (kept.request or b"")
    assert rules.target("chat").kept(record("chat", b"x" * 3_000)).request is None  # type: ignore[union-attr]
    door.refresh()
    assert door.rules() is rules
    place.store.apply_file(place.write(block("new", payload_logging="off")).endpoints, by="test")
    door.refresh()
    assert door.rules().target("new").kept(record("new", b"{}")) is None
    assert door.rules().targets["chat"].config_version == 1


def test_while_the_database_is_away_the_old_rules_stay(place: Place) -> None:
    door = place.door()
    door.refresh()
    rules = door.rules()
    place.database.dispose()
    shutil.move(place.folder / "data", place.folder / "away")
    stop = threading.Event()
    door.follow(stop)
    stop.wait(0.7)
    stop.set()
    assert door.rules() is rules
    assert door.caller({}) is None


def test_it_listens_beyond_this_machine_only_with_keys(place: Place) -> None:
    with pytest.raises(InvalidSettings, match=r"collector\.intake\.host: listening on '0\.0\.0\.0'"):
        place.build("0.0.0.0")
    with pytest.raises(InvalidSettings, match=r"collector\.intake\.host"):
        check_addresses(place.write(host="0.0.0.0"))
    door = place.door("0.0.0.0")
    door.refresh()
    assert refused(door, {}).status == 401
    place.keys.create("kserve", ["invoke"])
    place.build("0.0.0.0")
    check_addresses(place.write(host="0.0.0.0"))
