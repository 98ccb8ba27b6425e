"""Rules of the relabeling queue as the settings name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from relabel.selection.selector import Rule
from servelens.assembly.selection import selection_rules
from servelens.errors import InvalidSettings
from servelens.settings import Settings
from servelens.settings_file import load_settings
from tests.unit.servelens.control_settings import backend

KNOWN = ("json_schema", "personal_data", "refusal", "toxicity")


def written(folder: Path, *rules: dict[str, Any]) -> Settings:
    config = folder / "servelens.yaml"
    endpoints = [{"name": name, "config": {"served_entities": [backend()]}} for name in ("chat", "code")]
    file = {"data_dir": str(folder), "endpoints": endpoints, "relabel": {"rules": list(rules)}}
    config.write_text(yaml.safe_dump(file))
    return load_settings(config)


def test_a_rule_can_be_about_any_evaluator(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        {"endpoint": "chat", "evaluator": "refusal", "above": 0.5, "priority": 3},
        {"endpoint": "code", "evaluator": "json_schema", "below": 1},
        {"endpoint": "chat", "evaluator": "personal_data", "target": "request", "above": 0},
    )
    assert selection_rules(settings, KNOWN) == {
        "chat": [Rule("refusal", "response", 0.5, None, priority=3), Rule("personal_data", "request", 0.0)],
        "code": [Rule("json_schema", "response", None, 1.0)],
    }
    assert selection_rules(written(tmp_path), KNOWN) == {}


def test_an_evaluator_that_nobody_brings_is_named_with_those_there_are(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        {"endpoint": "chat", "evaluator": "refusal", "above": 0.5},
        {"endpoint": "chat", "evaluator": "toxicty", "above": 0.5},
    )
    with pytest.raises(InvalidSettings) as caught:
        selection_rules(settings, KNOWN)
    assert caught.value.field == "relabel.rules[1].evaluator"
    assert str(caught.value).startswith(
        "relabel.rules[1].evaluator: there is no evaluator 'toxicty'. Known are: "
    )
    assert ", toxicity." in str(caught.value)
