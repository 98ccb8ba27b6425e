"""``servelens relabel export`` and ``servelens export`` as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from relabel.forget import forget_records
from servelens.assembly.database import build_database
from servelens.cli import cli
from servelens.database import Database
from servelens.errors import Invalid, Missing, ServelensError
from servelens.settings_file import load_settings
from tests.labeled_cases import add_many
from tests.new_database import create_tables_of
from tests.openai_chat_rules import read_chat_file
from tests.unit.servelens.control_settings import backend, routes


class Installation:
    """A settings file with an endpoint, and a database with labeled cases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "servelens.yaml"
        split = {"served_entities": [backend("a")], "traffic_config": routes(a=100)}
        content = {"data_dir": str(folder / "data"), "endpoints": [{"name": "chat", "config": split}]}
        self.config.write_text(yaml.safe_dump(content))
        self.database: Database = build_database(load_settings(self.config))
        create_tables_of(self.database)
        add_many(self.database, 30)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--config", str(self.config)])

    def refused(self, *arguments: str) -> ServelensError:
        result = self.run(*arguments)
        assert isinstance(result.exception, ServelensError), result.output
        return result.exception


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    made.database.dispose()


def test_the_short_form_writes_openai_chat(here: Installation) -> None:
    output = here.folder / "train.jsonl"
    result = here.run("export", "--endpoint", "chat", "--output", str(output))
    assert (result.exit_code, result.output) == (0, f"30 conversations in {output}\n")
    assert len(read_chat_file(output.read_bytes())) == 30


def test_a_split_is_a_folder_that_can_be_made_again(here: Installation) -> None:
    output, again = here.folder / "kto", here.folder / "again"
    asked = ("--format", "trl_kto", "--split", "0.3", "--mask", "all", "--since", "2026-03-01")
    result = here.run("relabel", "export", *asked, "--output", str(output))
    assert result.exit_code == 0
    assert result.output.startswith(f"40 examples in {output} (")
    manifest = str(output / "manifest.json")
    assert json.loads((output / "manifest.json").read_bytes())["query"]["split"] == {
        "test": 0.3,
        "seed": 0,
        "by": "unit",
    }
    result = here.run("relabel", "export", "--reproduce", manifest, "--output", str(again))
    assert (result.exit_code, result.output) == (0, "The files are the same.\n")
    for name in ("train.jsonl", "test.jsonl"):
        assert (again / name).read_bytes() == (output / name).read_bytes()
    forget_records(here.database, "chat", ["request-000003"])
    result = here.run("relabel", "export", "--reproduce", manifest)
    assert result.exit_code == 1
    assert "1 cases are gone, since they were forgotten: 3" in result.output


def test_labels_go_to_the_table_once(here: Installation) -> None:
    asked = ("relabel", "export", "--format", "labels_table", "--endpoint", "chat")
    assert "30 decisions appended" in here.run(*asked).output
    assert "0 decisions appended" in here.run(*asked).output


def test_what_is_wrong_is_named(here: Installation) -> None:
    output = ("--output", str(here.folder / "x"))
    for arguments, kind, field in (
        (("relabel", "export"), Invalid, "--output"),
        (("relabel", "export", "--format", "csv", *output), Invalid, "format"),
        (("relabel", "export", "--value", "x", *output), Invalid, "value"),
        (("relabel", "export", "--endpoint", "nope", *output), Missing, None),
        (("export", "--endpoint", "nope", *output), Missing, None),
        (("relabel", "export", "--format", "labels_table"), Invalid, "endpoint"),
        (("relabel", "export", "--output", str(here.folder)), Invalid, "output"),
        (("relabel", "export", "--reproduce", str(here.config)), Invalid, str(here.config)),
    ):
        error = here.refused(*arguments)
        assert isinstance(error, kind), arguments
        assert error.field == field, arguments
    assert here.run("relabel", "export", "--since", "soon", *output).exit_code == 2
    assert not (here.folder / "x").exists()
