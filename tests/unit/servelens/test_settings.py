"""The settings file: what is wrong in it is said in one line that names the key and the fix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from servelens.errors import InvalidSettings
from servelens.reference import PAGE, settings_page
from servelens.settings import Settings
from servelens.settings_file import load_settings

GOOD = """
data_dir: data
endpoints:
  - name: chat
    config:
      served_entities:
        - {name: champion, backend: {urls: ["http://127.0.0.1:1"], api_key: "${KEY:-none}"}}
        - {name: challenger, backend: {urls: ["http://127.0.0.1:1"]}}
      traffic_config:
        routes:
          - {served_entity_name: champion, traffic_percentage: 90}
          - {served_entity_name: challenger, traffic_percentage: 10}
"""


def load(folder: Path, text: str, **environment: str) -> Settings:
    path = folder / "servelens.yaml"
    path.write_text(text)
    return load_settings(path, environment)


def test_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert settings.data_dir == tmp_path / "data"
    assert settings.spool_directory == tmp_path / "data" / "spool"
    assert settings.tables_root == str(tmp_path / "data" / "tables")
    assert settings.spool_directory.is_dir()


def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD, KEY="s3cret", SERVELENS_DATABASE_URL="postgresql+psycopg://u:pw@h/d")
    key = settings.endpoints[0].config.served_entities[0].backend.api_key
    assert key is not None
    assert key.get_secret_value() == "s3cret"
    assert settings.database.url is not None
    assert settings.database.url.get_secret_value() == "postgresql+psycopg://u:pw@h/d"
    assert "s3cret" not in repr(settings)
    assert "pw@" not in repr(settings)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "data_dir: data",
            "data_dirr: data",
            "servelens.yaml: data_dirr: there is no such key. Did you mean 'data_dir'?",
        ),
        (
            "{name: champion,",
            "{name: champion, nam: x,",
            "endpoints[0].config.served_entities[0].nam: there is no such key. Did you mean 'name'?",
        ),
        (
            "traffic_percentage: 10",
            "traffic_percentage: 5",
            "traffic_config.routes: traffic_percentage adds up to 95, not 100.",
        ),
        (
            "served_entity_name: challenger",
            "served_entity_name: chalenger",
            "routes[1].served_entity_name: there is no served entity 'chalenger'. Use one of: champion, challenger.",
        ),
        (
            "name: challenger, backend",
            "name: champion, backend",
            "there are two of the served entity 'champion'",
        ),
        ("${KEY:-none}", "${KEY}", "the environment variable KEY is not set. Set KEY"),
        ("name: chat", "name: 'a b'", "endpoints[0].name: 'a b' is not a name."),
        ("data_dir: data", "data_dir: data\nproxy: {port: http}", "servelens.yaml: proxy.port:"),
        (
            "data_dir: data",
            "data_dir: data\nproxy: {workers: 0}",
            "proxy.workers: Input should be greater than or equal to 1",
        ),
        (
            'urls: ["http://127.0.0.1:1"], api',
            'urls: ["localhost:1"], api',
            "'localhost:1' is not a backend address",
        ),
        ("data_dir: data", "data_dir: [", "is not YAML at line"),
        (
            "data_dir: data",
            "data_dir: /proc/nowhere",
            "data_dir: the folder /proc/nowhere cannot be written:",
        ),
        (
            "data_dir: data",
            "data_dir: data\nevaluations: [{endpoint: chat, evaluator: toxicity, cron: '61 * * * *'}]",
            "evaluations[0].cron: '61' is not within 0 to 59. Write five fields,",
        ),
        (
            "data_dir: data",
            "data_dir: data\ndrift: [{endpoint: chatt}]",
            "drift[0].endpoint: there is no endpoint 'chatt'. Use one of: chat.",
        ),
        (
            "data_dir: data",
            "data_dir: data\nrelabel: {rules: [{endpoint: chat, evaluator: toxicity}]}",
            "relabel.rules[0].above: give either 'above' or 'below'",
        ),
        (
            "data_dir: data",
            "data_dir: data\nrelabel: {schemas: [{endpoint: chatt, fields: [{name: ok, type: text}]}]}",
            "relabel.schemas[0].endpoint: there is no endpoint 'chatt'. Use one of: chat.",
        ),
        (
            "data_dir: data",
            "data_dir: data\nrelabel: {schemas: [{endpoint: chat, fields: [{name: ok, type: choice}]}]}",
            "relabel.schemas[0].fields[0].options: there is none. List the answers.",
        ),
        (
            "data_dir: data",
            "data_dir: data\nrelabel: {schemas: [{endpoint: chat, fields: [{name: ok, type: choice, options: [yes]}]}]}",
            "relabel.schemas[0].fields[0].options[0]: Input should be a valid string (it is True).",
        ),
        (
            "data_dir: data",
            "data_dir: data\nrelabel: {schemas: [{endpoint: chat, fields: [{name: ok, type: text, sugest: []}]}]}",
            "relabel.schemas[0].fields[0].sugest: there is no such key. Did you mean 'suggest'?",
        ),
        (
            "data_dir: data",
            "data_dir: data\nrelabel: {schemas: [{endpoint: chat, fields: [{name: ok, type: text}]}, {endpoint: chat, "
            "fields: [{name: ok, type: text}]}]}",
            "relabel.schemas: there are two of the endpoint 'chat'.",
        ),
        (
            "data_dir: data",
            "data_dir: data\nexperiments: [{name: e, endpoint: chat, control: {served_entity: champion, weight: 50},"
            " treatments: [{served_entity: nobody, weight: 50}]}]",
            "experiments[0].treatments[0].served_entity: endpoint 'chat' has no served entity 'nobody'.",
        ),
    ],
)
def test_a_wrong_file_is_one_line_with_key_and_fix(
    tmp_path: Path, before: str, after: str, expected: str
) -> None:
    assert before in GOOD
    with pytest.raises(InvalidSettings) as caught:
        load(tmp_path, GOOD.replace(before, after))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_ends_with_status_2_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "servelens.yaml").write_text(GOOD.replace("traffic_percentage: 10", "traffic_percentage: 11"))
    for command in ("up", "proxy", "collector", "scheduler", "console"):
        result = subprocess.run(
            [sys.executable, "-m", "servelens", command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 2, (command, result.stderr)
        assert "traffic_percentage adds up to 101, not 100" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"there is no file .*nothing\.yaml"):
        load_settings(tmp_path / "nothing.yaml")


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page()
