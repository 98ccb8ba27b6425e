"""``servelens relabel tasks`` and ``servelens relabel import`` as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import CliRunner, Result

from relabel.queue.case_queue import CaseQueue
from servelens.assembly.database import build_database
from servelens.cli import cli
from servelens.clock import SystemClock
from servelens.database import Database
from servelens.errors import Invalid, Missing
from servelens.settings_file import load_settings
from tests.interchange_imports import rated, task
from tests.new_database import create_tables_of
from tests.relabel_cases import add_cases, flagged
from tests.unit.servelens.control_settings import backend


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "servelens.yaml"
    endpoint = {"name": "chat", "config": {"served_entities": [backend("a")]}}
    file.write_text(yaml.safe_dump({"data_dir": "data", "endpoints": [endpoint]}))
    return file


@pytest.fixture
def database(config: Path) -> Iterator[Database]:
    (config.parent / "data").mkdir()
    opened = build_database(load_settings(config))
    create_tables_of(opened)
    add_cases(opened, [flagged(1), flagged(2)])
    yield opened
    opened.dispose()


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["relabel", *arguments, "--config", str(config)])


def test_tasks_go_out_and_annotations_come_back(config: Path, database: Database, tmp_path: Path) -> None:
    tasks, told = tmp_path / "tasks.json", tmp_path / "label_config.xml"
    result = run(
        config,
        *("tasks", "--tool", "label_studio", "--endpoint", "chat"),
        *("--output", str(tasks), "--config-output", str(told)),
    )
    assert (result.exit_code, result.stdout) == (0, f"2 tasks in {tasks}\n")
    assert ElementTree.parse(told).getroot().tag == "View"
    done = json.loads(tasks.read_text("utf-8"))
    for number, each in enumerate(done):
        each["annotations"] = [{**rated(number, "bad"), "completed_by": 3}]
    exported = tmp_path / "exported.json"
    exported.write_text(json.dumps(done), "utf-8")
    arguments = ("import", "--tool", "label_studio", "--annotator", "3=ann", str(exported))
    dry = run(config, *arguments, "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, "2 taken (dry run: nothing was changed)\n")
    assert run(config, *arguments).stdout == "2 taken\n"
    assert run(config, *arguments).stdout == "2 unchanged\n"
    case = CaseQueue(database, SystemClock()).get(1)
    assert [(given.annotator, given.source) for given in case.labels] == [("ann", "label_studio")]
    empty = run(
        config, "tasks", "--tool", "argilla", "--endpoint", "chat", "--output", str(tasks), "--limit", "5"
    )
    assert (empty.stdout, tasks.read_text("utf-8")) == (f"0 tasks in {tasks}\n", "[]\n")


def test_problems_are_told_one_a_line(config: Path, database: Database, tmp_path: Path) -> None:
    file = tmp_path / "exported.json"
    file.write_text(json.dumps([task(1, rated(11, "superb")), task(9, rated(12))]), "utf-8")
    result = run(config, "import", "--tool", "label_studio", str(file))
    assert (result.exit_code, result.stdout) == (1, "1 unknown_case, 1 refused\n")
    first, second = result.stderr.splitlines()
    assert first.startswith("[0] 1:11 by ann@example.com: refused: values.rating: 'superb' is none")
    assert second.startswith("[1] 9:12 by ann@example.com: unknown_case: there is no such case.")


def test_what_cannot_be_read_or_written_is_said(config: Path, database: Database, tmp_path: Path) -> None:
    file = tmp_path / "exported.json"
    file.write_text("no JSON", "utf-8")
    broken = run(config, "import", "--tool", "argilla", str(file))
    assert isinstance(broken.exception, Invalid)
    nowhere = tmp_path / "nowhere" / "tasks.json"
    arguments = ("tasks", "--tool", "argilla", "--endpoint")
    unwritable = run(config, *arguments, "chat", "--output", str(nowhere))
    assert isinstance(unwritable.exception, Invalid)
    assert str(nowhere) in str(unwritable.exception)
    unknown = run(config, *arguments, "nobody", "--output", str(file))
    assert isinstance(unknown.exception, Missing)
    assert file.read_text("utf-8") == "no JSON"
