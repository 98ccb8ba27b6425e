from __future__ import annotations

import json
from typing import Any

import pytest

from evaluators.evaluator import EMPTY, Evaluator
from evaluators.scorers.refusal import CLEAR, HEDGED, STATED
from evaluators.scorers.refusal_wording import WORDINGS
from tests.unit.evaluators.scorers.labelled_answers import ANSWERED, REFUSED
from tests.unit.evaluators.scorers.rules import one, refused, rule


@pytest.fixture(scope="module")
def refusal() -> Evaluator:
    return rule("refusal")


def labelled(answers: dict[str, tuple[str, ...]], evaluator: Evaluator, label: str) -> list[str]:
    return [text for texts in answers.values() for text in texts if one(evaluator, text).label == label]


def test_precision_and_recall_on_the_labelled_list(refusal: Evaluator) -> None:
    found, false = labelled(REFUSED, refusal, "refusal"), labelled(ANSWERED, refusal, "refusal")
    refusals = sum(map(len, REFUSED.values()))
    answers = sum(map(len, ANSWERED.values()))
    print(f"recall {len(found)}/{refusals}, false alarms {len(false)}/{answers}")  # noqa: T201
    assert len(found) / refusals >= 0.88
    assert len(found) / (len(found) + len(false)) >= 0.97


@pytest.mark.parametrize("language", REFUSED)
def test_every_language_is_found_and_named(language: str, refusal: Evaluator) -> None:
    scores = [one(refusal, text) for text in REFUSED[language]]
    named = [score.details["language"] for score in scores if score.value == CLEAR]
    assert len(named) >= 0.85 * len(scores)
    assert named.count(language) >= len(named) - 1


def test_every_match_has_a_trigger() -> None:
    """Triggers only save time: without them the same is found."""
    for wording in WORDINGS:
        for texts in (*REFUSED.values(), *ANSWERED.values()):
            for text in texts:
                plain = text.lower().replace("’", "'")
                if wording.clear.search(plain) or wording.hedged.search(plain):
                    assert any(trigger in plain for trigger in wording.triggers), (wording.language, text)


def test_the_phrase_is_shown(refusal: Evaluator) -> None:
    score = one(refusal, "I'm sorry, but I can’t help with that, Bob.")
    assert (score.value, score.label) == (CLEAR, "refusal")
    assert score.details == {"source": "wording", "language": "en", "phrase": "i can't help"}


def test_a_caveat_is_no_refusal_by_itself(refusal: Evaluator) -> None:
    text = "As an AI language model, I don't have feelings, but walking helps many people."
    assert (one(refusal, text).value, one(refusal, text).label) == (HEDGED, "answered")
    assert one(rule("refusal", threshold=0.4), text).label == "refusal"


def test_only_the_opening_counts(refusal: Evaluator) -> None:
    assert one(refusal, "Here are the steps. " * 20 + "I cannot help with that.").value == 0


@pytest.mark.parametrize(
    ("columns", "source"),
    [
        ({"finish_reason": "refusal"}, "finish_reason"),
        ({"finish_reason": "content_filter"}, "finish_reason"),
        (
            {"response": json.dumps({"choices": [{"message": {"content": None, "refusal": "No."}}]})},
            "refusal_field",
        ),
        (
            {
                "response": json.dumps(
                    {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]}
                )
            },
            "refusal_field",
        ),
    ],
)
@pytest.mark.parametrize("text", [None, "Let me see."])
def test_what_the_backend_says_needs_no_wording(
    columns: dict[str, Any], source: str, text: str | None, refusal: Evaluator
) -> None:
    score = one(refusal, text, **columns)
    assert (score.value, score.label, score.details["source"]) == (STATED, "refusal", source)


@pytest.mark.parametrize(
    "response",
    [
        None,
        "no json",
        '"refusal": "',
        json.dumps({"choices": [{"message": {"content": "Sure.", "refusal": None}}]}),
        json.dumps({"choices": [{"message": {"content": "Sure.", "refusal": ""}}]}),
        json.dumps({"choices": [{"message": {"content": '{"refusal": "quoted"}'}}]}),
        json.dumps({"choices": [{"message": {"content": "Sure."}}], "notes": {"refusal": "elsewhere"}}),
    ],
)
def test_an_empty_refusal_field_is_none(response: str | None, refusal: Evaluator) -> None:
    assert one(refusal, "Sure.", finish_reason="stop", response=response).value == 0
    assert one(refusal, None, finish_reason="stop", response=response).unscored_reason == EMPTY


def test_options_that_make_no_sense() -> None:
    refused("refusal", "threshold is a number between 0 and 1, not 1.5", threshold=1.5)
    refused("refusal", "threshold is more than 0", threshold=0)
    refused("refusal", "unknown option 'target'", target="request")
