"""``servelens forget`` over a settings file, real spools and real tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from collector.catalog import UNROUTED, Catalog
from collector.dead_letter import DeadLetter
from collector.ingest import Collector
from collector.record import Record
from collector.spool import SpoolWriter
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.tables import build_catalog
from servelens.cli import cli
from servelens.clock import SystemClock
from servelens.errors import Invalid, Missing
from servelens.identifiers import RequestIds
from servelens.settings_file import load_settings
from serving_proxy.redaction import pseudonym
from tests.relabel_cases import add_cases, flagged
from tests.unit.servelens.control_settings import backend, settings

PERSON = "ada@example.com"
KEY = "a secret"


class Place:
    """One machine: its settings, its spool, and a collector that is run when a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "servelens.yaml"
        entity = backend()
        self.write(
            [
                {"name": "chat", "config": {"served_entities": [entity]}},
                {
                    "name": "hidden",
                    "config": {"served_entities": [entity]},
                    "ai_gateway": {
                        "inference_table_config": {"redact_paths": ["$.user"], "pseudonym_key": KEY}
                    },
                },
            ]
        )
        self.settings = load_settings(self.config)
        self.database = build_database(self.settings)
        self._ids = RequestIds()

    def write(self, endpoints: list[dict[str, Any]]) -> None:
        content = {"data_dir": str(self.folder / "data"), "endpoints": endpoints}
        self.config.write_text(yaml.safe_dump(content))

    def store(self) -> Any:
        return open_endpoint_store(self.settings, self.database, SystemClock())

    def catalog(self) -> Catalog:
        return build_catalog(self.settings, self.store())

    def spool(self, *units: tuple[str, str | None]) -> list[str]:
        """One record for each endpoint and unit; their ids."""
        ids = [self._ids.next() for _ in units]
        writer = SpoolWriter.open(self.settings.spool_directory / "proxy-0")
        for request_id, (endpoint, unit) in zip(ids, units, strict=True):
            writer.append(
                Record(
                    request_id=request_id,
                    request_time_us=int(datetime.now(UTC).timestamp() * 1e6),
                    status_code=200,
                    duration_us=1_000,
                    endpoint=endpoint,
                    api="chat",
                    unit=unit,
                ),
                None,
            )
        writer.close(10)
        return ids

    def collect(self) -> None:
        collector = Collector(
            self.settings.spool_directory,
            self.catalog(),
            DeadLetter(self.settings.data_dir / "dead-letter"),
        )
        assert collector.drain()
        collector.close()

    def units(self, endpoint: str) -> list[str | None]:
        return self.catalog().tables(endpoint).payload.scan().collect()["unit"].sort().to_list()


@pytest.fixture
def place(tmp_path: Path) -> Any:
    made = Place(tmp_path)
    yield made
    made.database.dispose()


def forget(place: Place, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        cli, ["forget", "--config", str(place.config), "--wait-s", "0", *arguments], catch_exceptions=False
    )
    return result.exit_code, result.output


def test_a_person_is_forgotten_in_every_endpoint_and_by_every_spelling(place: Place) -> None:
    place.store().create(settings("by-api"), by="ann")
    ids = place.spool(
        ("chat", PERSON),
        ("chat", "bob"),
        ("by-api", PERSON),
        ("hidden", pseudonym(PERSON, KEY.encode())),
        ("hidden", pseudonym("bob", KEY.encode())),
        (UNROUTED, pseudonym(PERSON, KEY.encode())),
        ("no such endpoint", PERSON),
        ("by-api", pseudonym(PERSON, KEY.encode())),  # as feedback that was kept by another endpoint's rules
    )
    place.collect()
    kept = replace(flagged(3), unit=PERSON)  # retention has deleted its record
    add_cases(place.database, [flagged(1, request_id=ids[0]), flagged(2, request_id=ids[1]), kept])
    code, output = forget(place, "--unit", PERSON)
    assert code == 0, output
    assert output.splitlines()[:4] == [
        "chat: 1 records, 2 cases deleted",
        "hidden: 1 records deleted",
        "by-api: 2 records deleted",
        "no endpoint: 2 records deleted",
    ]
    assert "--now deletes them at once" in output
    assert "keeps copies until the worker has gone on to its next segment" in output
    assert PERSON not in output
    assert place.units("chat") == ["bob"]
    assert place.units("by-api") == place.units(UNROUTED) == []
    assert place.units("hidden") == [pseudonym("bob", KEY.encode())]
    code, output = forget(place, "--unit", PERSON)
    assert (code, output.splitlines()[0]) == (0, "There was nothing of this unit.")


def test_one_endpoint_only(place: Place) -> None:
    place.spool(("chat", PERSON), ("hidden", PERSON), (UNROUTED, PERSON))
    place.collect()
    code, output = forget(place, "--unit", PERSON, "--endpoint", "hidden")
    assert code == 0
    assert output.startswith("hidden: 1 records deleted\n")
    assert place.units("chat") == place.units(UNROUTED) == [PERSON]
    assert place.units("hidden") == []
    with pytest.raises(Missing, match=r"--endpoint: there is no endpoint 'nope'\. Use one of: chat, hidden"):
        forget(place, "--unit", PERSON, "--endpoint", "nope")
    with pytest.raises(Invalid, match="--unit: is empty"):
        forget(place, "--unit", "")


def test_now_takes_the_bytes_off_the_disk(place: Place) -> None:
    place.spool(("chat", PERSON), ("chat", "bob"))
    place.collect()
    forget(place, "--unit", PERSON)
    code, output = forget(place, "--unit", PERSON, "--now")
    assert code == 0
    assert "Their bytes are deleted: 2 files" in output
    tables = Path(place.settings.tables_root)
    files = [path for path in tables.rglob("*.parquet") if "_delta_log" not in path.parts]
    assert len(files) == 1
    assert place.units("chat") == ["bob"]
    place.spool(("chat", "bob"))
    place.spool(("chat", "bob"))
    place.collect()
    code, output = forget(place, "--unit", PERSON, "--now")
    assert "keeps copies" not in output
    data = [path for path in place.settings.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in data if PERSON.encode() in path.read_bytes()]


def test_what_is_in_the_spool_is_waited_for_and_named_when_it_does_not_come(place: Place) -> None:
    place.spool(("chat", PERSON), ("chat", "bob"))
    code, output = forget(place, "--unit", PERSON)
    assert code == 1
    assert "Not deleted: records in the spool of proxy-0" in output
    assert "Start the collector, and run this again." in output
    command: Sequence[str] = (
        *(sys.executable, "-m", "servelens", "forget", "--config", str(place.config)),
        *("--unit", PERSON, "--wait-s", "60"),
    )
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("Records are still in the spool")
        place.collect()
        rest = running.stdout.read()
        assert running.wait(60) == 0, rest
    finally:
        running.kill()
        running.communicate()
    assert rest.startswith("chat: 1 records deleted\n")
    assert place.units("chat") == ["bob"]


def test_dead_letters_are_named(place: Place) -> None:
    dead_letter = DeadLetter(place.settings.data_dir / "dead-letter")
    dead_letter.put_record("proxy-0", 3, b"broken " + PERSON.encode(), "not a record")
    code, output = forget(place, "--unit", PERSON)
    assert code == 0
    assert f"dead letter has the name in {dead_letter.directory}/proxy-0/{3:020d}.frame;" in output
