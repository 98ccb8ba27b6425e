"""Rules of the relabeling queue as the settings name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from relabel.selection.bound import Bound
from relabel.selection.rule import (
    DriftRule,
    EvaluatorDisagreementRule,
    FeedbackRule,
    LabelRule,
    LowConfidenceRule,
    RandomRule,
    Rule,
    ShadowScoreRule,
    ShadowTextRule,
    UnscoredRule,
)
from relabel.selection.suppression import Suppression
from servelens.assembly.selection import selection_rules, suppression_of
from servelens.errors import InvalidSettings
from servelens.settings import Settings
from servelens.settings_file import load_settings
from tests.unit.servelens.control_settings import backend

KNOWN = ("json_schema", "personal_data", "refusal", "toxicity")


def written(folder: Path, *rules: dict[str, Any], **relabel: Any) -> Settings:
    config = folder / "servelens.yaml"
    endpoints = [{"name": name, "config": {"served_entities": [backend()]}} for name in ("chat", "code")]
    file = {"data_dir": str(folder), "endpoints": endpoints, "relabel": {"rules": list(rules), **relabel}}
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


def test_every_kind_can_be_written(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        *(
            {"endpoint": "chat", **rule}
            for rule in (
                {"evaluator": "toxicity", "above": 0.5, "name": "toxic", "daily_budget": 50, "sample": 0.5},
                {"kind": "score_label", "evaluator": "refusal", "label": "refused"},
                {"kind": "unscored", "evaluator": "toxicity", "reason": ["timeout", "too_long"]},
                {"kind": "low_confidence", "evaluator": "toxicity", "between": [0.4, 0.6]},
                {"kind": "shadow_disagreement", "similarity_below": 0.3},
                {"kind": "shadow_disagreement", "evaluator": "toxicity", "differs_by": 0.4},
                {
                    "kind": "evaluator_disagreement",
                    "evaluators": [
                        {"evaluator": "toxicity", "above": 0.5},
                        {"evaluator": "refusal", "target": "request", "below": 1},
                    ],
                },
                {"kind": "feedback", "feedback": "thumbs", "label": ["down", "bad"], "priority": 9},
                {"kind": "feedback", "feedback": "stars", "below": 3},
                {"kind": "drift", "column": "input_tokens", "slice": "variant", "per_window": 5},
                {"kind": "random", "fraction": 0.01, "daily_budget": 20},
            )
        ),
    )
    assert selection_rules(settings, KNOWN)["chat"] == [
        Rule("toxicity", above=0.5, name="toxic", daily_budget=50, sample=0.5),
        LabelRule("refusal", ("refused",)),
        UnscoredRule("toxicity", ("timeout", "too_long")),
        LowConfidenceRule("toxicity", 0.4, 0.6),
        ShadowTextRule(0.3),
        ShadowScoreRule("toxicity", 0.4),
        EvaluatorDisagreementRule(Bound("toxicity", above=0.5), Bound("refusal", "request", below=1)),
        FeedbackRule("thumbs", labels=("down", "bad"), priority=9),
        FeedbackRule("stars", below=3),
        DriftRule("input_tokens", slice_key="variant", per_window=5),
        RandomRule(0.01, daily_budget=20),
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"evaluator": "toxicity"}, "rules[0].above: give either 'above' or 'below'"),
        ({"above": 1}, "rules[0].evaluator: a rule of kind 'score' needs it."),
        ({"kind": "random"}, "rules[0].fraction: a rule of kind 'random' needs it."),
        (
            {"kind": "random", "fraction": 0.1, "above": 1},
            "rules[0].above: a rule of kind 'random' has none. Leave it out.",
        ),
        ({"kind": "random", "fraction": 0.1, "sample": 0.5}, "rules[0].sample: it is a sample already."),
        (
            {"kind": "low_confidence", "evaluator": "toxicity", "between": [0.6, 0.4]},
            "rules[0].between: 0.6 to 0.4 is no range.",
        ),
        ({"kind": "shadow_disagreement", "evaluator": "toxicity"}, "rules[0].differs_by: say by how much"),
        (
            {"kind": "shadow_disagreement", "differs_by": 1},
            "rules[0].evaluator: 'differs_by' is of the scores",
        ),
        (
            {"kind": "evaluator_disagreement", "evaluators": [{"evaluator": "toxicity"}] * 2},
            "rules[0].evaluators[0].above: give either 'above' or 'below'.",
        ),
        ({"kind": "feedback", "feedback": "thumbs"}, "rules[0].label: nothing says which feedback"),
        ({"kind": "manual"}, "rules[0].kind: "),
    ],
)
def test_a_rule_that_means_nothing_is_named(tmp_path: Path, rule: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        written(tmp_path, {"endpoint": "chat", **rule})
    assert f"relabel.{expected}" in str(caught.value)


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    rule = {"endpoint": "chat", "evaluator": "toxicity", "above": 0.5, "name": "toxic"}
    written(tmp_path, rule, {**rule, "endpoint": "code"})
    with pytest.raises(InvalidSettings) as caught:
        written(tmp_path, {**rule, "endpoint": "code"}, rule, {**rule, "above": 0.9})
    assert "relabel.rules[2].name: there are two rules 'toxic'" in str(caught.value)


def test_both_evaluators_of_a_disagreement_must_be_there(tmp_path: Path) -> None:
    pair = [{"evaluator": "toxicity", "above": 0.5}, {"evaluator": "nobody", "above": 0.5}]
    settings = written(tmp_path, {"endpoint": "chat", "kind": "evaluator_disagreement", "evaluators": pair})
    with pytest.raises(InvalidSettings) as caught:
        selection_rules(settings, KNOWN)
    assert caught.value.field == "relabel.rules[0].evaluators[1].evaluator"


def test_how_alike_cases_may_be_can_differ_by_endpoint(tmp_path: Path) -> None:
    suppression = {"near_duplicate": 0.9, "endpoints": {"code": {"near_duplicate": None, "days": 2}}}
    settings = written(tmp_path, suppression=suppression)
    assert suppression_of(settings, "chat") == Suppression(near_duplicate=0.9)
    assert suppression_of(settings, "code") == Suppression(near_duplicate=None, days=2)
    for wrong, key in (
        ({"near_duplicate": 0.5}, "relabel.suppression.near_duplicate"),
        ({"endpoints": {"code": {"cluster": 0.99}}}, "relabel.suppression.endpoints.code.near_duplicate"),
        ({"endpoints": {"nobody": {}}}, "relabel.suppression.endpoints.nobody.endpoint"),
    ):
        with pytest.raises(InvalidSettings) as caught:
            written(tmp_path, suppression=wrong)
        assert key in str(caught.value)
