from __future__ import annotations

import json

import pytest

from evaluators.evaluator import EMPTY, TOO_SHORT, Evaluator, Text
from evaluators.scorers.language import UNDETERMINED
from tests.unit.evaluators.scorers.rules import one, refused, rule

SAID = {
    "en": "Preheat the oven to two hundred degrees and bake the bread for forty minutes.",
    "de": "Heizen Sie den Ofen auf zweihundert Grad vor und backen Sie das Brot vierzig Minuten lang.",
    "fr": "Préchauffez le four à deux cents degrés et faites cuire le pain pendant quarante minutes.",
    "es": "Precaliente el horno a doscientos grados y hornee el pan durante cuarenta minutos.",
    "ja": "オーブンを二百度に予熱し、パンを四十分間焼いてください。",
    "ru": "Разогрейте духовку до двухсот градусов и выпекайте хлеб сорок минут.",
    "ko": "오븐을 이백 도로 예열하고 빵을 사십 분 동안 구우세요.",
}


@pytest.fixture(scope="module")
def plain() -> Evaluator:
    return rule("language")


@pytest.fixture(scope="module")
def same() -> Evaluator:
    return rule("language", same_as_prompt=True)


@pytest.mark.parametrize("code", SAID)
def test_the_label_is_the_language(code: str, plain: Evaluator) -> None:
    score = one(plain, SAID[code])
    assert score.label == code
    assert score.value is not None
    assert score.value > 0.9


@pytest.mark.parametrize(
    "text", ["Paris.", "ok", "42", "1. 2. 3. 4. 5. 6. 7. 8. 9.", "👍👍👍👍👍👍👍👍👍👍👍👍"]
)
def test_a_few_letters_are_too_short(text: str, plain: Evaluator) -> None:
    assert one(plain, text).unscored_reason == TOO_SHORT


def test_what_could_be_any_language_is_unscored(plain: Evaluator) -> None:
    score = one(plain, "def f(x): return x+1 # qzx kwv")
    assert score.unscored_reason == UNDETERMINED
    assert isinstance(score.details["confidence"], float)


def test_code_in_an_answer_is_not_read(plain: Evaluator) -> None:
    answer = f"```python\n{SAID['en'] * 9}\n```\n{SAID['de']}"
    assert one(plain, answer).label == "de"
    assert one(plain, f"```\n{SAID['en']}\n```").unscored_reason == TOO_SHORT


def test_a_wanted_language_is_scored_by_its_probability() -> None:
    evaluator = rule("language", expected=["de", "fr"])
    wanted, other = one(evaluator, SAID["fr"]), one(evaluator, SAID["en"])
    assert (wanted.label, wanted.details["expected"]) == ("fr", "yes")
    assert (other.label, other.details["expected"]) == ("en", "no")
    assert wanted.value is not None
    assert other.value is not None
    assert wanted.value > 0.9
    assert other.value < 0.05
    assert one(evaluator, "Paris.").unscored_reason == TOO_SHORT


def test_an_answer_in_another_language_than_its_question(same: Evaluator) -> None:
    right = one(same, SAID["de"], "Wie backe ich ein gutes Brot im Ofen?")
    wrong = one(same, SAID["en"], "Wie backe ich ein gutes Brot im Ofen?")
    assert (right.label, right.details["same_as_prompt"]) == ("de", "yes")
    assert (wrong.label, wrong.details["same_as_prompt"]) == ("en", "no")
    assert wrong.details["prompt_language"] == "de"
    assert right.value is not None
    assert wrong.value is not None
    assert right.value > 0.9
    assert wrong.value < 0.1


def test_the_question_is_what_the_user_said_last_not_the_instructions(same: Evaluator) -> None:
    system = "You are a helpful assistant of a bakery. Answer politely and mention our opening hours. " * 3
    question = "Wie backe ich ein gutes Brot im Ofen?"
    chat = {
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": SAID["en"]},
            {"role": "assistant", "content": SAID["en"]},
            {"role": "user", "content": question},
        ]
    }
    anthropic = {
        "system": system,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "tool_use", "name": "oven", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "content": SAID["en"]}]},
        ],
    }
    responses = {
        "instructions": system,
        "input": [{"role": "user", "content": [{"type": "input_text", "text": question}]}],
    }
    for body in (chat, anthropic, responses):
        score = one(same, SAID["de"], f"{system}\n{question}", request=json.dumps(body))
        assert score.details["prompt_language"] == "de", body
        assert score.details["same_as_prompt"] == "yes"
    for body_text in (None, "no json", "[]", '{"prompt": "x"}', '{"messages": [7, {"role": "user"}]}'):
        score = one(same, SAID["de"], question, request=body_text)
        assert score.details["prompt_language"] == "de", body_text


def test_a_question_of_no_language_leaves_the_answer_unscored(same: Evaluator) -> None:
    short = one(same, SAID["de"], "ok")
    assert (short.unscored_reason, short.details) == (TOO_SHORT, {"of": "request"})
    assert one(same, SAID["de"], None).unscored_reason == EMPTY


def test_fewer_languages_make_short_texts_surer() -> None:
    among = rule("language", among=["en", "de"])
    assert one(among, "Hello world").label == "en"
    assert {score.label for score in among.score([Text(None, text) for text in SAID.values()])} == {
        "en",
        "de",
    }


def test_options_that_make_no_sense() -> None:
    refused(
        "language", "expected does not know 'english'. Languages are ISO 639 codes.*, en,", expected="english"
    )
    refused("language", "expected is a list of texts, and False is none.*in quotes", expected=["en", False])
    refused("language", "expected does not know 'fr'.*it knows: de, en", expected="fr", among=["en", "de"])
    refused("language", "among does not know 'xx'", among=["xx"])
    refused("language", "expected or same_as_prompt, not both", expected="en", same_as_prompt=True)
    refused("language", "same_as_prompt is about answers", target="request", same_as_prompt=True)
    refused("language", "min_confidence is a number between 0 and 1, not 30", min_confidence=30)
    refused("language", "min_letters is a whole number of at least 1", min_letters=0)
    refused("language", "same_as_prompt is true or false, not 'yes'", same_as_prompt="yes")
