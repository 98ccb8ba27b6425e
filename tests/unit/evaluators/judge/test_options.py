from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluators.judge.judge import Judge
from evaluators.registry import EvaluatorSpec, build
from servelens.errors import Invalid

MakeJudge = Callable[..., Judge]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://host"}, "judge\\].url: 'ftp://host' is no address"),
        ({"url": "http://me:key@host/v1"}, "judge\\].url: it holds a user"),
        ({"url": "http://host/v1?key=1"}, "judge\\].url: it holds"),
        ({"model": " "}, "judge\\].model"),
        ({"rubric": " "}, "judge\\].rubric: there is neither"),
        ({"name": "quality"}, "judge\\].name"),
        ({"target": "both"}, "judge\\].target"),
        ({"structured": "yes"}, "judge\\].structured"),
        ({"scale": [5, 1]}, "judge\\].scale: 5 is not below 1"),
        ({"scale": [1]}, "judge\\].scale"),
        ({"scale": [1, 5], "labels": {"a": 1, "b": 0}}, "judge\\].labels: there is a scale as well"),
        ({"labels": {"a": 1}}, "judge\\].labels"),
        ({"labels": {True: 1, False: 0}}, "judge\\].labels: a label is no word"),
        ({"labels": {"a": "x", "b": 0}}, "judge\\].labels.a: 'x' is no number"),
        ({"threshold": 7}, "judge\\].threshold: 7 is not between 1 and 5"),
        ({"temperature": 3}, "judge\\].temperature"),
        ({"samples": 3}, "judge\\].samples: at temperature 0"),
        ({"samples": 0}, "judge\\].samples"),
        ({"timeout_s": 0}, "judge\\].timeout_s"),
        ({"backoff_s": 0}, "judge\\].backoff_s"),
        ({"concurrency": 0}, "judge\\].concurrency"),
        ({"retries": -1}, "judge\\].retries"),
        ({"max_tokens": 0}, "judge\\].max_tokens"),
        ({"api_key": "clé"}, "judge\\].api_key"),
        ({"api_key": "key\n"}, "judge\\].api_key: it is empty, or has a character that no header takes"),
        ({"criteria": [{"name": "tone"}]}, "judge\\].criteria\\[0\\]"),
        ({"criteria": [{"name": "cost", "description": "x"}]}, "judge\\].criteria\\[0\\].name"),
        ({"criteria": [{"name": "a", "description": "x", "weight": 0}]}, "judge\\].criteria\\[0\\].weight"),
        ({"criteria": [{"name": "a", "description": "x"}] * 2}, "criteria\\[1\\].name: there are two"),
        ({"max_cost_per_run": 1.0}, "max_cost_per_run: what an answer costs is not known"),
        ({"price_per_million_input": 1.0}, "price_per_million_output"),
        ({"price_per_million_input": -1.0, "price_per_million_output": 1.0}, "price_per_million_input"),
    ],
)
def test_a_wrong_option_is_named(judge_for: MakeJudge, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        judge_for(**options)


def test_a_folder_that_cannot_be_written_is_named(judge_for: MakeJudge, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    prices = {"price_per_million_input": 1.0, "price_per_million_output": 1.0}
    with pytest.raises(Invalid, match="spending_file"):
        judge_for(max_cost_per_day=1.0, spending_file=str(tmp_path / "file" / "x.sqlite"), **prices)


def test_the_version_changes_with_what_changes_a_score_and_with_nothing_else(judge_for: MakeJudge) -> None:
    version = judge_for().version
    same: list[dict[str, Any]] = [
        {"api_key": "other"},
        {"concurrency": 3},
        {"retries": 1},
        {"timeout_s": 5.0},
        {"price_per_million_input": 1.0, "price_per_million_output": 1.0, "max_cost_per_run": 3.0},
    ]
    other: list[dict[str, Any]] = [
        {"model": "other"},
        {"url": "http://other/v1"},
        {"rubric": "Is it polite?"},
        {"scale": [0, 1]},
        {"labels": {"a": 1, "b": 0}},
        {"threshold": 3},
        {"temperature": 0.5},
        {"max_tokens": 100},
        {"structured": "none"},
        {"target": "request"},
        {"extra_body": {"seed": 1}},
        {"criteria": [{"name": "tone", "description": "polite"}]},
    ]
    assert {judge_for(**options).version for options in same} == {version}
    assert len({judge_for(**options).version for options in other} | {version}) == len(other) + 1


def test_it_is_built_by_its_name(tmp_path: Path) -> None:
    options = {"url": "http://host/v1/", "model": "m", "rubric": "Good?", "name": "judge.tone"}
    judge = build(EvaluatorSpec("judge", options), tmp_path)
    assert (judge.name, judge.model, judge.target) == ("judge.tone", "m", "response")
    with pytest.raises(Invalid, match="unknown option 'rubrik'"):
        build(EvaluatorSpec("judge", {"url": "http://h/v1", "model": "m", "rubrik": "x"}), tmp_path)
    with pytest.raises(Invalid, match=r"evaluators\[judge\].*'url'"):
        build(EvaluatorSpec("judge", {"model": "m", "rubric": "x"}), tmp_path)
