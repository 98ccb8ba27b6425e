"""The form of a label schema as JSON for the browser, and labels in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dashboard import label_form, reason_text
from dashboard.conversation import Turn
from dashboard.pages import relabel_case
from relabel.alternatives import answered
from relabel.case import Case, CaseState, Reason, ReasonKind, RecordedScore
from relabel.label import ANSWER, TIE, GivenLabel, Label, Rating
from relabel.schema_definition import parse_schema
from servelens.errors import Invalid

NOW = datetime(2026, 3, 14, tzinfo=UTC)
SHADOW = answered("shadow", {"role": "assistant", "content": "Nothing new."})
CASE = Case(
    id=7,
    endpoint="chat",
    databricks_request_id="request-7",
    state=CaseState.CLAIMED,
    priority=0,
    occurrences=1,
    version=3,
    annotator="Ann",
    lease_expires_at=None,
    served_entity="champion",
    variant=None,
    model=None,
    request_time=NOW,
    created_at=NOW,
    updated_at=NOW,
    prompt_preview=None,
    response_preview=None,
    reasons=(),
    messages=(
        {"role": "user", "content": "🚀 go"},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "Gone."},
    ),
    answered=True,
    tools=None,
    prompt_text="🚀 go\ngo",
    response_text="Gone.",
    scores=(RecordedScore("toxicity", "response", 0.9, "toxic"),),
    labels=(),
    skip_reason=None,
    alternatives=(SHADOW,),
)
SCHEMA = parse_schema(
    {
        "show_suggestions": True,
        "fields": [
            {"name": "rating", "type": "rating", "required": True},
            {"name": "better", "type": "preference", "required": True},
            {
                "name": "flaws",
                "type": "multiple_choice",
                "options": ["Rude", "Wrong"],
                "suggest": [{"evaluator": "toxicity", "above": 0.5, "value": "Rude"}],
            },
            {"name": "asked", "type": "spans", "options": ["Task"], "of": "request"},
        ],
    }
)


def form(case: Case, annotator: str = "Ann", **more: object) -> dict[str, object]:
    return label_form.form(case, SCHEMA, annotator, answer="Gone.", shown=(), serial=1, **more)  # type: ignore[arg-type]


def given(annotator: str, **parts: object) -> GivenLabel:
    return GivenLabel(annotator, Label(**parts), NOW)  # type: ignore[arg-type]


def test_the_form_does_not_say_which_answer_is_whose() -> None:
    found = form(CASE, prefill={"better": SHADOW.id})
    text = repr(found)
    assert SHADOW.id not in text
    assert f"'{ANSWER}'" not in text.replace("'answer': 'Gone.'", "")
    better = next(field for field in found["fields"] if field["name"] == "better")  # type: ignore[attr-defined]
    assert [option["title"] for option in better["options"]] == ["Answer 1", "Answer 2", "None is better"]
    letter = found["prefill"]["better"]  # type: ignore[index]
    assert label_form.from_browser({"better": letter}, SCHEMA, CASE, "Ann") == {"better": SHADOW.id}


def test_a_preference_comes_back_by_its_letter_and_nothing_else() -> None:
    assert label_form.from_browser({"better": TIE, "rating": "good"}, SCHEMA, CASE, "Ann") == {
        "better": TIE,
        "rating": "good",
    }
    with pytest.raises(Invalid) as error:
        label_form.from_browser({"better": SHADOW.id}, SCHEMA, CASE, "Ann")
    assert error.value.field == "values.better"


def test_nothing_is_compared_with_one_answer_alone() -> None:
    alone = form(replace(CASE, alternatives=()))
    better = next(field for field in alone["fields"] if field["name"] == "better")  # type: ignore[attr-defined]
    assert (better["options"], better["required"]) == ([], False)
    assert "only one answer" in better["help"]


def test_suggestions_name_their_score() -> None:
    flaws = form(CASE)["fields"][2]  # type: ignore[index]
    assert flaws["suggestions"] == [{"value": "Rude", "why": "toxicity 0.900"}]


def test_request_is_marked_in_its_messages_at_places_of_the_whole_text() -> None:
    turns = relabel_case.turns_of(CASE)
    found = label_form.surfaces(CASE, SCHEMA, turns)
    assert [(each.turn, each.offset, each.text) for each in found] == [(0, 0, "🚀 go"), (1, 5, "go")]
    assert all(
        (CASE.prompt_text or "")[each.offset : each.offset + len(each.text)] == each.text for each in found
    )


def test_request_that_is_not_made_of_its_messages_is_marked_as_a_whole() -> None:
    found = label_form.surfaces(CASE, SCHEMA, [Turn("user", "something else")])
    assert [(each.turn, each.offset, each.text) for each in found] == [(None, 0, "🚀 go\ngo")]


def test_what_most_say_is_told_field_by_field() -> None:
    labels = (
        given("Ann", rating=Rating.GOOD, values={"flaws": ["Rude", "Wrong"]}),
        given("Bob", rating=Rating.GOOD, values={"flaws": ["Wrong", "Rude"]}),
        given("Cyd", rating=Rating.BAD, preferred=TIE),
    )
    case = replace(CASE, labels=labels)
    assert label_form.majority(case, SCHEMA) == {"rating": "good", "flaws": ["Rude", "Wrong"]}
    assert label_form.differing(labels, SCHEMA) == {"rating", "flaws", "better"}
    assert label_form.differing(labels[:2], SCHEMA) == frozenset()
    assert label_form.majority(replace(CASE, labels=labels[1:]), SCHEMA) is None
    assert form(case)["given"] == []
    assert form(case, is_adjudication=True)["given"] != []


@pytest.mark.parametrize("kind", ReasonKind)
def test_every_kind_of_reason_has_a_sentence(kind: ReasonKind) -> None:
    full = Reason(
        rule="a rule",
        kind=kind,
        priority=1,
        evaluator="toxicity",
        target="response",
        score=0.9,
        direction="above",
        threshold=0.5,
        label="toxic",
        detail="more to say",
    )
    bare = Reason(rule="a rule", kind=kind, priority=1)
    for reason in (full, bare):
        lead, rest = reason_text.sentence(reason)
        assert lead
        assert "None" not in lead + rest + reason_text.brief(reason)
    assert reason_text.TITLES[kind]


def test_a_score_says_which_side_of_the_threshold_it_is_on() -> None:
    reason = Reason(
        rule="r",
        kind=ReasonKind.SCORE,
        priority=1,
        evaluator="quality",
        target="request",
        score=0.1,
        direction="below",
        threshold=0.25,
    )
    assert reason_text.sentence(reason) == ("quality 0.100", " of the request, under 0.250")
