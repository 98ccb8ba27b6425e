from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from dashboard import conversation
from dashboard.conversation import Turn

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "messages",
                    "role",
                    "content",
                    "choices",
                    "message",
                    "tool_calls",
                    "function",
                    "text",
                    "error",
                    "prompt",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def test_chat_with_parts_tools_and_answer() -> None:
    request = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image_url", "image_url": {"url": "x"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "find", "arguments": "{}"}}],
            },
        ]
    }
    response = {"choices": [{"message": {"role": "assistant", "content": "Done."}}]}
    assert conversation.turns(json.dumps(request), json.dumps(response), None, None) == [
        Turn("system", "Be brief."),
        Turn("user", "Look:\n[image_url]"),
        Turn("assistant", "", (("find", "{}"),)),
        Turn("assistant", "Done.", is_answer=True),
    ]


def test_completion_and_plain_texts() -> None:
    assert conversation.turns('{"prompt": "Once"}', '{"choices": [{"text": " upon"}]}', None, None) == [
        Turn("user", "Once"),
        Turn("assistant", " upon", is_answer=True),
    ]
    assert conversation.turns(None, None, "asked", "answered") == [
        Turn("user", "asked"),
        Turn("assistant", "answered", is_answer=True),
    ]
    assert conversation.turns(None, None, None, None) == []


def test_error_message() -> None:
    assert conversation.error_message('{"error": {"message": "No."}}') == "No."
    assert conversation.error_message('{"error": "No."}') == "No."
    assert conversation.error_message('{"detail": "No."}') == "No."
    assert conversation.error_message("<html>") is None


@given(JSON, JSON)
def test_no_payload_breaks_it(request: object, response: object) -> None:
    texts = json.dumps(request), json.dumps(response)
    for turn in conversation.turns(*texts, "p", "r"):
        assert isinstance(turn.text, str)
        assert isinstance(turn.role, str)
    conversation.error_message(texts[1])


@given(st.text())
def test_text_that_is_no_json_is_shown_as_it_is(text: str) -> None:
    conversation.turns(text, text, text, text)
    if conversation.parse(text) is None:
        assert conversation.pretty(text) == text


def test_deep_nesting_is_text() -> None:
    assert conversation.parse("[" * 100_000) is None
