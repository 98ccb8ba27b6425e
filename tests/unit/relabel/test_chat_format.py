"""relabel.chat_format: whatever a conversation holds, an example keeps OpenAI's rules or is left out with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.export.formats.openai_chat import OPENAI_CHAT
from relabel.export.left_out import LeftOut
from relabel.label import Label, Rating
from tests.labeled_cases import labeled_case
from tests.openai_chat_rules import read_chat_file

USER = {"role": "user", "content": "why?"}
ANSWER = {"role": "assistant", "content": "because"}


def _example(
    messages: list[dict[str, Any]],
    *,
    answered: bool = True,
    rating: Rating = Rating.GOOD,
    corrected_answer: str | None = None,
) -> dict[str, Any] | LeftOut:
    label = Label(rating=rating, corrected_answer=corrected_answer)
    (example,) = OPENAI_CHAT.parts[""].examples(labeled_case(label, messages=messages, answered=answered))
    return example


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{**USER, "content": ""}, ANSWER], LeftOut.EMPTY_MESSAGE),
        ([{**USER, "content": None}, ANSWER], LeftOut.EMPTY_MESSAGE),
        ([{**USER, "content": []}, ANSWER], LeftOut.EMPTY_MESSAGE),
        ([{**USER, "content": [{"type": "text", "text": " "}]}, ANSWER], LeftOut.EMPTY_MESSAGE),
        ([{**USER, "content": 7}, ANSWER], LeftOut.UNSUPPORTED_CONTENT),
        ([{**USER, "content": [{"type": "input_audio"}]}, ANSWER], LeftOut.UNSUPPORTED_CONTENT),
        ([{**USER, "content": ["text"]}, ANSWER], LeftOut.UNSUPPORTED_CONTENT),
        ([{"role": "narrator", "content": "x"}, ANSWER], LeftOut.UNSUPPORTED_ROLE),
        ([USER, {"role": "assistant", "content": None}], LeftOut.EMPTY_MESSAGE),
        ([USER, {"role": "assistant", "refusal": "no"}], LeftOut.EMPTY_MESSAGE),
        ([USER, {"role": "assistant", "tool_calls": "x"}], LeftOut.UNSUPPORTED_CONTENT),
        ([ANSWER], LeftOut.NO_PROMPT),
    ],
)
def test_what_does_not_fit_is_left_out_with_a_reason(messages: list[dict[str, Any]], reason: LeftOut) -> None:
    assert _example(messages) == reason


def test_without_an_answer_only_a_correction_gives_an_example() -> None:
    assert _example([USER], answered=False) == LeftOut.NO_ANSWER
    assert _example([USER], answered=False, rating=Rating.BAD) == LeftOut.BAD_WITHOUT_CORRECTION
    example = _example([USER], answered=False, rating=Rating.BAD, corrected_answer="because")
    assert example == {"messages": [USER, ANSWER]}


def test_a_correction_replaces_the_recorded_answer_with_its_tool_calls() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    recorded = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert _example([USER, recorded]) == {"messages": [USER, {"role": "assistant", "tool_calls": [call]}]}
    assert _example([USER, recorded], corrected_answer="because") == {"messages": [USER, ANSWER]}


def test_only_the_judged_answer_is_trained_on() -> None:
    example = _example([USER, ANSWER, USER, ANSWER])
    assert isinstance(example, dict)
    assert [message.get("weight") for message in example["messages"]] == [None, 0, None, None]


def test_the_messages_given_are_not_changed() -> None:
    messages = [USER, dict(ANSWER), USER, dict(ANSWER)]
    before = json.dumps(messages)
    _example(messages)
    assert json.dumps(messages) == before


_contents = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.integers(),
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["text", "image_url", "file"])}, optional={"text": st.text(max_size=3)}
        ),
        max_size=2,
    ),
)
_messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer", "user", "assistant", "function", "judge"]),
        "content": _contents,
    },
    optional={"name": st.just("n"), "refusal": st.just("no"), "extra": st.integers()},
)


@given(
    messages=st.lists(_messages, max_size=4),
    answer=st.none() | _contents.map(lambda content: {"role": "assistant", "content": content}),
    rating=st.sampled_from(Rating),
    corrected_answer=st.none() | st.just("better"),
)
def test_every_example_keeps_the_documented_rules(
    messages: list[dict[str, Any]],
    answer: dict[str, Any] | None,
    rating: Rating,
    corrected_answer: str | None,
) -> None:
    example = _example(
        [*messages, answer] if answer else messages,
        answered=answer is not None,
        rating=rating,
        corrected_answer=corrected_answer,
    )
    if isinstance(example, dict):
        read_chat_file(json.dumps(example).encode() + b"\n")
