"""``servelens verify``, ``collector replay`` and ``collector skip`` as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from collector.dead_letter import DeadLetter
from collector.ingest import Collector
from collector.record import Record, encode
from collector.spool import SpoolWriter
from servelens.assembly.tables import build_catalog
from servelens.cli import cli
from servelens.errors import Missing
from servelens.settings import Settings
from servelens.settings_file import load_settings

ENDPOINT = {
    "name": "chat",
    "config": {"served_entities": [{"name": "a", "backend": {"urls": ["http://127.0.0.1:9"]}}]},
}


@dataclass
class Installation:
    """A settings file and what its processes would have made."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "servelens.yaml"

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    def spool(self, *statuses: Any) -> str:
        writer = SpoolWriter.open(self.settings.spool_directory / "proxy-0")
        for number, status in enumerate(statuses):
            writer.append(record(f"r{writer.next_offset}-{number}", status), None)
        writer.close(10)
        return writer.worker_id

    def collect(self) -> Collector:
        letters = DeadLetter(self.settings.dead_letter_directory)
        collector = Collector(self.settings.spool_directory, build_catalog(self.settings), letters)
        assert collector.drain()
        collector.close()
        return collector

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--config", str(self.config)])


def record(name: str, status: Any = 200) -> Record:
    return Record(name, 1_772_366_400_000_000, status, 1_000, "chat", "chat", request=b"{}")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation(tmp_path)
    made.config.write_text(yaml.safe_dump({"data_dir": "data", "endpoints": [ENDPOINT]}))
    return made


def test_books_that_add_up(installation: Installation) -> None:
    worker = installation.spool(200, "many", 200)
    installation.collect()
    result = installation.run("verify")
    assert result.exit_code == 0, result.output
    assert "The books add up." in result.stdout
    (line,) = (line for line in result.stdout.splitlines() if worker in line)
    assert [part.strip() for part in line.strip("│").split("│")][1:] == [
        "3", "2", "0", "1", "0", "0", "0", "0", "0"
    ]  # fmt: skip
    found = json.loads(installation.run("verify", "--json").stdout)
    assert found["adds_up"] is True
    assert (found["total"]["accepted"], found["total"]["in_table"], found["total"]["in_dead_letter"]) == (
        3,
        2,
        1,
    )
    assert found["workers"][0]["worker_id"] == worker


def test_books_that_do_not_add_up_name_what_is_missing(installation: Installation) -> None:
    worker = installation.spool(*([200] * 8))
    (segment,) = (installation.settings.spool_directory / "proxy-0").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[data.index(b"r3-3")] ^= 1
    segment.write_bytes(bytes(data))
    result = installation.run("verify")
    assert result.exit_code == 0, "the damage has a name"
    assert f"Damaged (spool, not yet in the dead letter): {worker} {segment.name} bytes" in result.stdout
    segment.unlink()
    result = installation.run("verify")
    assert result.exit_code == 1
    assert f"Missing: {worker} 8 records, offsets 0-7" in result.stdout
    assert "The books do not add up." in result.stdout


def test_an_empty_installation_adds_up(installation: Installation) -> None:
    assert installation.run("verify").exit_code == 0
    result = installation.run("collector", "replay")
    assert (result.exit_code, result.stdout) == (0, "The dead letter holds no record.\n")


def test_replay_says_what_came_of_each_record(installation: Installation) -> None:
    worker = installation.spool(200, "many", "many", 200)
    installation.collect()
    result = installation.run("collector", "replay")
    assert result.exit_code == 1
    assert f"{worker} 1: cannot be read (Expected `int`" in result.stdout
    frame = installation.settings.dead_letter_directory / worker / f"{2:020d}.frame"
    frame.write_bytes(encode(record("healed")))
    result = installation.run("collector", "replay", "--worker", worker, "--offset", "2")
    assert result.exit_code == 0
    assert f"{worker} 2: replayed (" in result.stdout
    rows = build_catalog(installation.settings).tables("chat").payload.scan().collect()
    assert rows.filter(spool_offset=2)["databricks_request_id"].to_list() == ["healed"]


def test_a_halted_spool_is_skipped_by_its_slot(installation: Installation) -> None:
    worker = installation.spool(200, *(["many"] * 30), 200)
    halted = installation.collect().status.halted[worker]
    assert f"servelens collector skip --worker {worker}" in halted
    result = installation.run("collector", "skip", "--worker", "proxy-0")
    assert result.exit_code == 0
    assert f"Records of {worker} up to offset 31" in result.stdout
    assert not installation.collect().status.halted
    assert json.loads(installation.run("verify", "--json").stdout)["total"]["in_dead_letter"] == 30


def test_a_worker_that_is_not_there_is_missing(installation: Installation) -> None:
    for command, said in (("replay", "no such record"), ("skip", "there is no spool of worker 'w'")):
        error = installation.run("collector", command, "--worker", "w").exception
        assert isinstance(error, Missing)
        assert said in error.message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["collector", "replay", "--offset", "3"], "--offset: offsets are a worker's own"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(
    installation: Installation, arguments: list[str], said: str
) -> None:
    command = [sys.executable, "-m", "servelens", *arguments]
    result = subprocess.run(
        command, cwd=installation.folder, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
