"""relabel.export.formats: which answers are learnt from, and that every example keeps the rules of its format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.export.formats.format import Layout
from relabel.export.formats.registry import FORMATS, format_of
from relabel.export.left_out import LeftOut
from relabel.label import ANSWER, TIE, Label, Rating
from servelens.errors import Invalid
from tests.labeled_cases import BAD, GOOD, alternative, corrected, labeled_case
from tests.llama_factory_rules import read_alpaca_file, read_sharegpt_file
from tests.openai_chat_rules import read_chat_file
from tests.openai_preference_rules import read_preference_file

USER = {"role": "user", "content": "why?"}
SAID = {"role": "assistant", "content": "because"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "42"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
OTHERS = (alternative("a", "one"), alternative("b", "two"))


def made(name: str, label: Label, **parts: Any) -> list[Any]:
    """What a format makes of a case: examples, and reasons as words."""
    (part,) = FORMATS[name].parts.values()
    return [
        str(each) if isinstance(each, LeftOut) else each
        for each in part.examples(labeled_case(label, **parts))
    ]


def chosen_and_rejected(label: Label, **parts: Any) -> list[Any]:
    return [
        each if isinstance(each, str) else (each["chosen"][0]["content"], each["rejected"][0]["content"])
        for each in made("trl_preference", label, **parts)
    ]


def completions(label: Label, **parts: Any) -> list[Any]:
    return [
        each if isinstance(each, str) else (each["completion"][0]["content"], each["label"])
        for each in made("trl_kto", label, **parts)
    ]


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        (GOOD, "because"),
        (BAD, "bad_without_correction"),
        (corrected("better"), "better"),
        (corrected("best", Rating.GOOD), "best"),
        (Label(), "not_judged"),
        (Label(preferred=ANSWER), "because"),
        (Label(preferred="b"), "two"),
        (Label(preferred=TIE), "tie"),
        (Label(preferred="gone"), "unknown_alternative"),
        (Label(rating=Rating.GOOD, preferred="a"), "one"),
        (Label(rating=Rating.GOOD, preferred=TIE), "because"),
        # What was preferred to a bad answer need not be good, nor a bad answer that was preferred.
        (Label(rating=Rating.BAD, preferred="a"), "bad_without_correction"),
        (Label(rating=Rating.BAD, preferred=ANSWER), "bad_without_correction"),
        (Label(rating=Rating.BAD, preferred="a", corrected_answer="best"), "best"),
    ],
)
def test_what_is_learnt_from(label: Label, answer: str) -> None:
    [example] = made("trl_prompt_completion", label, alternatives=OTHERS)
    assert (example if isinstance(example, str) else example["completion"][0]["content"]) == answer


@pytest.mark.parametrize(
    ("label", "pairs"),
    [
        (GOOD, ["no_pair"]),
        (BAD, ["no_pair"]),
        (corrected("better"), [("better", "because")]),
        (corrected("best", Rating.GOOD), ["no_pair"]),
        (corrected("because"), ["same_answer"]),
        (Label(preferred=ANSWER), [("because", "one"), ("because", "two")]),
        (Label(preferred="b"), [("two", "because"), ("two", "one")]),
        (Label(preferred=TIE), ["tie"]),
        (Label(preferred="gone"), ["unknown_alternative"]),
        (
            Label(rating=Rating.BAD, preferred="a", corrected_answer="best"),
            [("best", "because"), ("one", "because"), ("one", "two")],
        ),
    ],
)
def test_pairs(label: Label, pairs: list[Any]) -> None:
    assert chosen_and_rejected(label, alternatives=OTHERS) == pairs


def test_an_answer_that_was_not_recorded_gives_no_pair_of_a_correction() -> None:
    assert chosen_and_rejected(corrected("x"), messages=[USER], answered=False) == ["no_answer"]
    only_others = chosen_and_rejected(
        Label(preferred="a"), messages=[USER], answered=False, alternatives=OTHERS
    )
    assert only_others == [("one", "two")]


def test_the_same_alternative_twice_is_no_pair() -> None:
    twice = (alternative("a", "one"), alternative("b", "one"))
    assert chosen_and_rejected(Label(preferred="a"), alternatives=twice) == [
        ("one", "because"),
        "same_answer",
    ]


@pytest.mark.parametrize(
    ("label", "judged"),
    [
        (GOOD, [("because", True)]),
        (BAD, [("because", False)]),
        (corrected("better"), [("because", False), ("better", True)]),
        (corrected("best", Rating.GOOD), [("because", True), ("best", True)]),
        (corrected("because"), ["same_answer"]),
        (corrected("because", Rating.GOOD), [("because", True)]),
        (Label(corrected_answer="best"), [("best", True)]),
        (Label(preferred="a"), [("one", True), ("because", False), ("two", False)]),
        (Label(rating=Rating.BAD, preferred="a"), [("because", False)]),
        (Label(preferred=TIE), ["tie"]),
        (Label(), ["not_judged"]),
    ],
)
def test_judged_answers(label: Label, judged: list[Any]) -> None:
    assert completions(label, alternatives=OTHERS) == judged


def test_a_conversation_with_tools_in_every_format() -> None:
    messages = [{"role": "developer", "content": "Be exact."}, USER, CALLS, RESULT, SAID]
    parts: dict[str, Any] = {"messages": messages, "tools": TOOLS}
    system = {"role": "system", "content": "Be exact."}
    read = {**CALL, "function": {"name": "f", "arguments": {"x": 1}}}
    asked = [system, USER, {"role": "assistant", "content": "", "tool_calls": [read]}, RESULT]
    schemas = json.dumps(TOOLS)
    assert made("trl_language_modeling", GOOD, **parts) == [
        {
            "messages": [
                *({**m, "content": m["content"]} for m in asked[:3]),
                {"role": "tool", "content": "42", "tool_call_id": "1"},
                SAID,
            ],
            "tools": schemas,
        }
    ]
    [pair] = made("openai_preference", corrected("better"), **parts)
    assert pair == {
        "input": {
            "messages": [system, USER, {"role": "assistant", "tool_calls": [CALL]}, RESULT],
            "tools": TOOLS,
            "parallel_tool_calls": True,
        },
        "preferred_output": [{"role": "assistant", "content": "better"}],
        "non_preferred_output": [SAID],
    }
    assert made("sharegpt", GOOD, **parts) == [
        {
            "conversations": [
                {"from": "human", "value": "why?"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "42"},
                {"from": "gpt", "value": "because"},
            ],
            "system": "Be exact.",
            "tools": schemas,
        }
    ]
    assert made("alpaca", GOOD, **parts) == ["unsupported_tools"]


@pytest.mark.parametrize(
    ("name", "messages", "reason"),
    [
        ("alpaca", [USER, USER, SAID], "unsupported_turns"),
        ("alpaca", [SAID, USER, SAID], "unsupported_turns"),
        ("sharegpt", [USER, CALLS, RESULT, RESULT, SAID], "unsupported_turns"),
        ("sharegpt", [USER, {"role": "system", "content": "x"}, SAID], "unsupported_turns"),
        ("sharegpt", [USER, {**CALLS, "content": "Let me see."}, RESULT, SAID], "unsupported_tools"),
        (
            "sharegpt",
            [USER, {**CALLS, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}],
            "unsupported_tools",
        ),
        (
            "trl_kto",
            [USER, {**CALLS, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}]}],
            "unsupported_tools",
        ),
        ("trl_kto", [USER, SAID, SAID], "unsupported_turns"),
        (
            "trl_kto",
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, SAID],
            "unsupported_content",
        ),
        ("trl_kto", [{"role": "function", "name": "f", "content": "1"}, SAID], "unsupported_role"),
        ("trl_kto", [SAID], "no_prompt"),
    ],
)
def test_what_does_not_fit_is_left_out_with_a_reason(name: str, messages: list[Any], reason: str) -> None:
    assert made(name, GOOD, messages=messages) == [reason]


def test_text_parts_follow_each_other() -> None:
    content = [{"type": "text", "text": "why"}, {"type": "text", "text": "?"}]
    [example] = made("trl_prompt_completion", GOOD, messages=[{**USER, "content": content}, SAID])
    assert example["prompt"] == [USER]


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(Invalid, match="Use one of: openai_chat") as caught:
        format_of("csv")
    assert caught.value.field == "format"


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
_content = st.one_of(
    st.none(), _texts, st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": _texts}), max_size=2)
)
_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "function"]), "content": _content},
    optional={
        "name": st.just("n"),
        "refusal": st.just("no"),
        "tool_calls": st.sampled_from([[CALL], [CALL, CALL]]),
    },
)
_labels = st.builds(
    Label,
    rating=st.none() | st.sampled_from(Rating),
    corrected_answer=st.none() | st.just("better"),
    preferred=st.none() | st.sampled_from([ANSWER, TIE, "a", "b", "gone"]),
)
_RULES = {
    "openai_chat": read_chat_file,
    "openai_preference": read_preference_file,
    "alpaca": read_alpaca_file,
    "sharegpt": read_sharegpt_file,
}


@given(
    messages=st.lists(_message, max_size=4),
    answer=st.none() | _content.map(lambda content: {"role": "assistant", "content": content}),
    label=_labels,
    tools=st.none() | st.just(TOOLS),
)
def test_every_case_gives_examples_that_keep_the_rules_or_reasons(
    messages: list[dict[str, Any]], answer: dict[str, Any] | None, label: Label, tools: Any
) -> None:
    case = labeled_case(
        label,
        messages=[*messages, answer] if answer else messages,
        answered=answer is not None,
        alternatives=OTHERS,
        tools=tools,
    )
    before = repr(case)
    for each in FORMATS.values():
        if each.layout is Layout.TABLE:
            continue
        for part in each.parts.values():
            found = list(part.examples(case))
            assert found, each.name
            lines = [json.dumps(one).encode() + b"\n" for one in found if isinstance(one, Mapping)]
            if each.name in _RULES:
                _RULES[each.name](b"".join(lines))
    assert repr(case) == before
