"""``servelens relabel schema …`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from servelens.cli import cli
from servelens.errors import Conflict, Invalid, Missing
from tests.unit.servelens.control_settings import backend

SCHEMA: dict[str, Any] = {"annotators": 2, "fields": [{"name": "why", "type": "text"}]}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "servelens.yaml"
    endpoint = {"name": "chat", "config": {"served_entities": [backend("a")]}}
    file.write_text(yaml.safe_dump({"data_dir": "data", "endpoints": [endpoint]}))
    return file


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["relabel", "schema", *map(str, arguments)])


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_a_schema_is_shown_edited_and_set(config: Path, tmp_path: Path) -> None:
    at = ("--config", config, "--endpoint", "chat")
    shown = run("show", *at)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("# chat, version 0, the default\nfields:\n- name: rating\n")
    edited = {**yaml.safe_load(shown.stdout), "annotators": 3}
    file = written(tmp_path / "schema.yaml", edited)
    assert run("set", file, *at).stdout == "chat: version 1 is asked from now on.\n"
    assert run("set", file, *at).stdout == "chat: version 1 is what is asked already.\n"
    current = json.loads(run("show", *at, "--json").stdout)
    assert (current["version"], current["source"], current["schema"]) == (1, "api", edited)
    first = json.loads(run("show", *at, "--version", "0", "--json").stdout)
    assert first["schema"]["annotators"] == 1


def test_a_block_of_the_settings_file_and_json_are_taken(config: Path, tmp_path: Path) -> None:
    block = written(tmp_path / "block.yaml", {"endpoint": "chat", **SCHEMA})
    assert run("set", block, "--config", config).stdout == "chat: version 1 is asked from now on.\n"
    other = written(tmp_path / "schema.json", json.dumps({**SCHEMA, "annotators": 4}, indent="\t"))
    result = run("set", other, "--config", config, "--endpoint", "chat", "--if-version", "1")
    assert result.stdout == "chat: version 2 is asked from now on.\n"
    again = run("set", block, "--config", config, "--if-version", "1")
    assert isinstance(again.exception, Conflict)
    assert again.exception.field == "--if-version"


def test_a_file_is_checked_without_settings(tmp_path: Path) -> None:
    file = written(tmp_path / "schema.yaml", SCHEMA)
    assert run("check", file).stdout == f"{file} is a label schema: why (text).\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("fields: [", "schema.yaml is not YAML at line 1, column 10"),
        ("- a", "schema.yaml must hold keys such as 'fields:'."),
        ("fields: [{name: a, type: choice, options: [no]}]", "fields[0].options[0]: False is no text."),
        ("endpoint: 1\nfields: []", "endpoint: 1 is no name."),
    ],
)
def test_a_wrong_file_is_told_by_its_key(tmp_path: Path, content: str, expected: str) -> None:
    result = run("check", written(tmp_path / "schema.yaml", content))
    assert isinstance(result.exception, Invalid)
    assert expected in str(result.exception)


def test_an_endpoint_that_is_not_there_is_told(config: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "schema.yaml", SCHEMA)
    assert isinstance(run("set", file, "--config", config).exception, Invalid)
    for result in (
        run("set", file, "--config", config, "--endpoint", "chatt"),
        run("show", "--config", config, "--endpoint", "chatt"),
    ):
        assert isinstance(result.exception, Missing)
        assert "Use one of: chat." in str(result.exception)
    block = written(tmp_path / "block.yaml", {"endpoint": "chat", **SCHEMA})
    result = run("set", block, "--config", config, "--endpoint", "code")
    assert "--endpoint: " in str(result.exception)
