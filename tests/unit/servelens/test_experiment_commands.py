"""``servelens experiment …`` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from experiments.lifecycle import Lifecycle
from experiments.models import DecisionRow
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import build_endpoint_store
from servelens.cli import cli
from servelens.clock import SystemClock
from servelens.control.promotion import move_route
from servelens.control.store import EndpointStore
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing
from servelens.settings_file import load_settings
from tests.new_database import create_tables_of
from tests.unit.servelens.control_settings import backend, routes

BLOCK: dict[str, Any] = {
    "name": "tone",
    "endpoint": "chat",
    "control": {"served_entity": "a", "weight": 50},
    "treatments": [{"served_entity": "b", "weight": 50}],
}


@dataclass
class Installation:
    """A settings file with one endpoint, and its database."""

    folder: Path
    database: Database

    @property
    def config(self) -> Path:
        return self.folder / "servelens.yaml"

    @property
    def lifecycle(self) -> Lifecycle:
        return Lifecycle(self.database, SystemClock())

    @property
    def endpoints(self) -> EndpointStore:
        return build_endpoint_store(load_settings(self.config), self.database, SystemClock())

    def block(self, **changes: Any) -> str:
        file = self.folder / "block.yaml"
        file.write_text(yaml.safe_dump({**BLOCK, **changes}))
        return str(file)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["experiment", *arguments, "--config", str(self.config)])

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


def write(config: Path, **more: Any) -> None:
    split = {"served_entities": [backend("a"), backend("b")], "traffic_config": routes(a=90, b=10)}
    config.write_text(
        yaml.safe_dump({"data_dir": "data", "endpoints": [{"name": "chat", "config": split}], **more})
    )


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    write(tmp_path / "servelens.yaml")
    database = build_database(load_settings(tmp_path / "servelens.yaml"))
    create_tables_of(database)
    yield Installation(tmp_path, database)
    database.dispose()


def test_created_listed_shown_paused_resumed_and_stopped(installation: Installation) -> None:
    assert "no experiment" in installation.run("list").stderr
    created = installation.run("create", installation.block(), "--draft")
    assert created.stdout == "Experiment 'tone' is draft.\n"
    assert installation.run("start", "tone").stdout == "Experiment 'tone' is running on chat, phase 0.\n"
    assert installation.json("pause", "tone")["state"] == "paused"
    assert installation.json("resume", "tone")["state"] == "running"
    listed = installation.run("list").stdout
    assert "50 / 50" in listed
    assert "running" in listed
    shown = installation.run("show", "tone").stdout
    for words in ("tone (ab on chat)", "revision 4", "not looked at yet", "50 %"):
        assert words in shown
    assert installation.run("stop", "tone", "--reason", "seen enough").exit_code == 0
    assert installation.json("list") == {"experiments": []}
    (ended,) = installation.json("list", "--all")["experiments"]
    assert (ended["outcome"], ended["reason"], ended["verdict"]) == ("stopped", "seen enough", None)
    assert installation.json("show", "tone")["definition"]["endpoint"] == "chat"


def test_promote_moves_the_route_and_abort_does_not(installation: Installation) -> None:
    installation.run("create", installation.block())
    promoted = installation.run("promote", "tone", "--reason", "better")
    assert promoted.stdout == "Experiment 'tone' is promoted.\n"
    config = installation.endpoints.get("chat").settings["config"]
    assert config["traffic_config"] == routes(b=100)
    back = {"control": BLOCK["treatments"][0], "treatments": [BLOCK["control"]]}
    installation.run("create", installation.block(name="next", **back))
    assert installation.json("abort", "next", "--reason", "worse")["outcome"] == "aborted"
    assert installation.endpoints.get("chat").settings["config"] == config


def test_decisions_are_listed(installation: Installation) -> None:
    installation.run("create", installation.block())
    with installation.database.session() as session:
        session.add(
            DecisionRow(
                experiment="tone",
                decided_at=datetime(2026, 5, 1, 12, tzinfo=UTC),
                decision="hold",
                by="rollout",
                step=1,
                phase=1,
                dry_run=False,
                applied=False,
                reason="12 of 100 events",
                evidence={"events": 12},
            )
        )
    assert "12 of 100 events" in installation.run("decisions", "tone").stdout
    (decision,) = installation.json("decisions", "tone")["decisions"]
    assert (decision["decision"], decision["evidence"]) == ("hold", {"events": 12})
    assert decision["decided_at"] == "2026-05-01T12:00:00+00:00"


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"endpoint": "nowhere"}, "endpoint", "Use one of: chat"),
        ({"control": {"served_entity": "c", "weight": 50}}, "control.served_entity", "Use one of: a, b"),
        ({"shares": 5}, "shares", "no such field"),
        ({"control": {"served_entity": "a", "weight": 40}}, "weight", "adds up to 90"),
        ({"kind": "canary"}, "control.weight", "rollout.steps"),
        ({"primary_metric": "nonsense"}, "primary_metric", "nonsense"),
        (
            {
                "kind": "shadow",
                "control": {"served_entity": "a"},
                "treatments": [{"served_entity": "b"}],
            },
            "treatments[0].served_entity",
            "no shadow of 'chat'",
        ),
    ],
)
def test_what_cannot_be_created_is_refused_by_field(
    installation: Installation, changes: dict[str, Any], field: str, words: str
) -> None:
    refused = installation.run("create", installation.block(**changes)).exception
    assert isinstance(refused, Invalid)
    assert refused.field == field
    assert words in str(refused)
    assert installation.lifecycle.standings() == []


def test_a_file_that_is_no_block_is_refused(installation: Installation) -> None:
    for text in ("- 1", "{", ""):
        (installation.folder / "wrong.yaml").write_text(text)
        refused = installation.run("create", str(installation.folder / "wrong.yaml"))
        assert isinstance(refused.exception, Invalid)


@pytest.mark.parametrize("command", ["show", "start", "pause", "resume", "stop", "decisions", "report"])
def test_an_unknown_name_is_answered_with_the_known_ones(installation: Installation, command: str) -> None:
    installation.run("create", installation.block())
    refused = installation.run(command, "nobody").exception
    assert isinstance(refused, Missing)
    assert "Use one of: tone" in str(refused)


def test_the_exit_status_says_whether_the_name_or_the_state_is_wrong(installation: Installation) -> None:
    installation.run("create", installation.block(), "--draft")
    for name, status, words in (("nobody", 2, "Use one of: tone"), ("tone", 1, "is a draft")):
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "servelens",
                "experiment",
                "report",
                name,
                "--config",
                installation.config,
            ],
            capture_output=True,
            text=True,
            env=dict(os.environ),
            check=False,
        )
        assert ended.returncode == status
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_report_starts_what_the_file_has(installation: Installation) -> None:
    write(installation.config, experiments=[BLOCK])
    report = json.loads(installation.run("report", "tone").stdout)
    assert (report["experiment"], report["units"]) == ("tone", 0)
    assert installation.lifecycle.standing("tone").source == "file"


def test_a_promotion_that_was_cut_in_two_is_finished(installation: Installation) -> None:
    installation.run("create", installation.block())
    move_route(installation.endpoints, "chat", "a", "b", by="killed")
    assert installation.json("promote", "tone", "--reason", "better")["outcome"] == "promoted"
    again = installation.run("promote", "tone", "--reason", "again").exception
    assert isinstance(again, Conflict)
    assert "is stopped (promoted)" in str(again)
    assert installation.endpoints.get("chat").config_version == 2
    refused = installation.run("abort", "tone", "--reason", "worse").exception
    assert isinstance(refused, Conflict)


def test_what_cannot_be_promoted_is_said(installation: Installation) -> None:
    thirds = {"control": {"served_entity": "a", "name": "x", "weight": 20}}
    arms = [{"served_entity": "a", "name": name, "weight": 40} for name in ("y", "z")]
    installation.run("create", installation.block(treatments=arms, **thirds))
    installation.run("create", installation.block(name="draft"), "--draft")
    for name, words in (("tone", "has 2 treatments"), ("draft", "is a draft")):
        refused = installation.run("promote", name, "--reason", "why not").exception
        assert isinstance(refused, Conflict | Invalid)
        assert words in str(refused)
    installation.run("stop", "tone")
    ended = installation.run("promote", "tone", "--reason", "late").exception
    assert "is stopped (stopped)" in str(ended)
    empty = installation.run("abort", "draft", "--reason", " ").exception
    assert isinstance(empty, Invalid)
