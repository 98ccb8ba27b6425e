"""No value at a redacted path is ever kept; all others stay equal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.stream_aggregation import aggregate
from servelens.errors import InvalidSettings
from serving_proxy.json_path import Step, parse_path
from serving_proxy.redaction import Redaction, pseudonym

MARK = "[REDACTED]"
SECRET = "tOpSeCrEt"


def redacted(path: str, value: Any) -> Any:
    out = Redaction([path]).apply(json.dumps(value).encode())
    assert out is not None
    return json.loads(out)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("$.user", [Step("user")]),
        ("$['us er']", [Step("us er")]),
        ('$["it\'s"]', [Step("it's")]),
        (r"$['it\'s']", [Step("it's")]),
        ("$.a[*].b[3]", [Step("a"), Step(), Step("b"), Step(number=3)]),
        ("$..ssn", [Step("ssn", below=True)]),
        ("$..['a b'].c", [Step("a b", below=True), Step("c")]),
        ("$.straße", [Step("straße")]),
    ],
)
def test_paths(text: str, steps: list[Step]) -> None:
    assert list(parse_path(text)) == steps


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "$",
            "user",
            "$.",
            "$..",
            "$...a",
            "$.a[-1]",
            "$.a[1:2]",
            "$.a[?(@.b)]",
            "$.*",
            "$.a.*",
            "$..*",
            "$..[0]",
        ),
        *("$.a[", "$.a]", "$.a b", "$['a'", "$['a','b']", "$.a[01]", "$.1a", "$ .a", "$.a ", "$['\ud800']"),
    ],
)
def test_what_is_no_path_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Redaction([text])
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("$.user", {"user": "x", "a": {"user": "y"}}, {"user": MARK, "a": {"user": "y"}}),
        ("$.user", {"user": {"id": [1, 2]}}, {"user": MARK}),
        ("$.a[1].b", {"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": MARK}]}),
        ("$.a[*].b", {"a": [{"b": 1}, 3, {"b": 2}]}, {"a": [{"b": MARK}, 3, {"b": MARK}]}),
        ("$.a[*]", {"a": {"x": 1, "y": [2]}}, {"a": {"x": MARK, "y": MARK}}),
        ("$..b", {"a": [[{"b": 1}]], "b": {"b": 2}}, {"a": [[{"b": MARK}]], "b": MARK}),
        ("$..a..b", {"b": 1, "a": {"c": [{"b": 2}]}}, {"b": 1, "a": {"c": [{"b": MARK}]}}),
        ("$[0]", ["x", "y"], [MARK, "y"]),
        ("$['[DONE]']", {"[DONE]": "x"}, {"[DONE]": MARK}),
        (r"$['a/\"b']", {'a/"b': "x", "c": 1}, {'a/"b': MARK, "c": 1}),
        ("$.a.b", {"a": "b", "c": {"b": 1}}, {"a": "b", "c": {"b": 1}}),
        ("$['é']", {"é": 1}, {"é": MARK}),
    ],
)
def test_values_are_replaced(path: str, value: Any, expected: Any) -> None:
    assert redacted(path, value) == expected


def test_a_body_without_the_key_is_the_same_object() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "the user: said\nhi"}], "n": 1.10}).encode()
    assert Redaction(["$.user", "$..ssn"]).apply(body) is body
    stream = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'
    assert Redaction(["$.user", "$..ssn"]).apply(stream) is stream
    assert Redaction(["$.user"]).apply(b"") == b""


@pytest.mark.parametrize(
    "body",
    [
        rb'{"\u0075ser":"tOpSeCrEt"}',
        rb'{"\u0075\u0073\u0065\u0072" : "tOpSeCrEt"}',
        b'{"user"\n\t: "tOpSeCrEt"}',
        b'{"user":"tOpSeCrEt","user":"public"}',
        b'{"user":"public","user":{"x":"tOpSeCrEt"}}',
        rb'{"user":1,"use\u0072":"tOpSeCrEt","user":1}',
        b' \n{"user":"tOpSeCrEt"}',
        b'data: {"user":\ndata: "tOpSeCrEt"}\n\n',
        b'data: {"user"\ndata: : "tOpSeCrEt"}\n\n',
        b'event: x\r\ndata:{"user":"tOpSeCrEt"}\r\n\r\ndata: [DONE]\r\n\r\n',
        b'data: {"user":"tOpSeCrEt"}\r\rdata: {}\r\r',
        b': ping\n\ndata: {"response":{"user":"tOpSeCrEt"}}\n\n',
    ],
)
def test_spellings(body: bytes) -> None:
    out = Redaction(["$.user"]).apply(body)
    assert out is not None
    assert SECRET.encode() not in out
    assert MARK.encode() in out


def test_a_key_that_hides_an_earlier_one_hides_no_value() -> None:
    body = b'{"messages":[{"content":"tOpSeCrEt"}],"messages":[]}'
    assert Redaction(["$.messages[*].content"]).apply(body) == b'{"messages":[]}'


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"not json",
            b"<html>user</html>",
            b'{"user":"x"',
            b'{"user":"x"}}',
            b"{'user': 'x'}",
            b'{"a":NaN,"user":1}',
        ),
        *(
            b'{"user":' + b"[" * 200_000,
            b"data: nonsense\n\ndata: {}\n\n",
            b'data: {"user":"x"\n\ndata: {}\n\n',
        ),
        b'{"a":' * 70 + b'{"ssn":1}' + b"}" * 70,
    ],
)
def test_what_cannot_be_shown_to_be_clean_is_not_kept(body: bytes) -> None:
    assert Redaction(["$..ssn", "$..user.x"]).apply(body) is None


@given(cut=st.integers(1, 90))
def test_an_unfinished_event_does_not_leak(cut: int) -> None:
    whole = b'data: {"user":"tOpSeCrEt","choices":[]}\n\n'
    out = Redaction(["$.user"]).apply((whole * 3)[: len(whole) + cut])
    assert out is not None
    assert b"tOp" not in out
    assert out.startswith(b'data: {"user":"[REDACTED]"')


def test_what_is_not_named_stays_the_bytes_it_was() -> None:
    body = b'{"user":"x","t":1.10,"big":123456789012345678901234567890,"e":1e400,"m":[ {"k" : "\\u00e9"} ]}'
    out = Redaction(["$.user"]).apply(body)
    assert out == body.replace(b'"x"', b'"[REDACTED]"')


# What an answer says, whole and as the events of the same answer.
ARGUMENTS = json.dumps({"q": SECRET})
CHAT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": SECRET, "tool_calls": []}}]}
CHAT_EVENTS = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": SECRET}}]}]
TOOL = {"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": ARGUMENTS}}]}}]}
TOOL_EVENTS = [{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ARGUMENTS}}]}}]}]
MESSAGE = {"type": "message", "id": "m", "content": [{"type": "text", "text": SECRET}]}
MESSAGE_EVENTS = [
    {"type": "message_start", "message": {"id": "m", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": SECRET}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": SECRET}},
]
TOOL_USE = {"content": [{"type": "tool_use", "name": "f", "input": {"q": SECRET}}]}
TOOL_USE_EVENTS = [
    {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": ARGUMENTS}}
]
PART = {"type": "output_text", "text": SECRET}
RESPONSE = {"object": "response", "output": [{"type": "message", "content": [PART]}]}
RESPONSE_EVENTS = [
    {"type": "response.output_text.delta", "delta": SECRET},
    {"type": "response.output_text.done", "text": SECRET},
    {"type": "response.content_part.done", "part": PART},
    {"type": "response.output_item.done", "item": RESPONSE["output"][0]},  # type: ignore[index]
    {"type": "response.completed", "response": RESPONSE},
]
CALL = {"output": [{"type": "function_call", "arguments": ARGUMENTS}]}
CALL_EVENTS = [
    {"type": "response.function_call_arguments.delta", "delta": ARGUMENTS},
    {"type": "response.function_call_arguments.done", "arguments": ARGUMENTS},
    {"type": "response.output_item.done", "item": CALL["output"][0]},
]
PATHS = [
    *(
        "$.choices",
        "$.choices[*]",
        "$.choices[0].message",
        "$.choices[*].message.content",
        "$..message.content",
    ),
    *(
        "$..content",
        "$..message",
        "$.choices[*].message.tool_calls",
        "$..arguments",
        "$..text",
        "$..input",
        "$..output",
    ),
    *(
        "$.choices[0].message.tool_calls[*].function.arguments",
        "$.content",
        "$.content[*]",
        "$.content[0].text",
    ),
    *(
        "$.content[*].input",
        "$.content[0].input.q",
        "$.output",
        "$.output[*].content[*].text",
        "$.output[0].arguments",
    ),
    *("$.output[*].content", "$.output[0]", "$..message..arguments", "$..function.arguments", "$..choices"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("whole", "events"),
    [
        *((CHAT, CHAT_EVENTS), (TOOL, TOOL_EVENTS), (MESSAGE, MESSAGE_EVENTS), (TOOL_USE, TOOL_USE_EVENTS)),
        *((RESPONSE, RESPONSE_EVENTS), (CALL, CALL_EVENTS)),
    ],
)
def test_a_stream_hides_what_the_whole_answer_hides(path: str, whole: Any, events: list[Any]) -> None:
    redaction = Redaction([path])
    stream = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    out = redaction.apply(json.dumps(whole).encode())
    streamed = redaction.apply(stream)
    assert out is not None
    assert streamed is not None
    if SECRET.encode() not in out:
        assert SECRET.encode() not in streamed


def test_a_redacted_stream_is_still_one_answer() -> None:
    pieces = [{"role": "assistant"}, {"content": "one "}, {"content": "two"}]
    events = [{"user": "me", "choices": [{"index": 0, "delta": piece}]} for piece in pieces]
    stream = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
    out = Redaction(["$.user"]).apply(stream)
    assert out is not None
    answer = aggregate(out)
    assert answer is not None
    assert answer["choices"][0]["message"]["content"] == "one two"
    assert answer["user"] == MARK


keys = st.sampled_from(["user", "a", "b", "us\u00e9r", 'q"', "x/y", "[DONE]", "messages", "content"])
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
paths = st.lists(
    st.sampled_from(
        [
            ".user",
            ".a",
            "..b",
            "..user",
            "['us\u00e9r']",
            "['q\"']",
            "['x/y']",
            "[*]",
            "[0]",
            "[1]",
            "..content",
        ]
    ),
    min_size=1,
    max_size=4,
).map(lambda steps: "$" + "".join(steps))


def model(value: Any, steps: tuple[Step, ...]) -> Any:
    """The same in the plainest words: one path at a time on the decoded value."""
    if not steps:
        return MARK
    step, rest = steps[0], steps[1:]

    def child(key: object, inner: Any) -> Any:
        if step.below:
            inner = model(inner, steps)
        if (step.name is None and step.number is None) or key == (
            step.number if step.name is None else step.name
        ):
            return model(inner, rest)
        return inner

    if isinstance(value, dict):
        return {key: child(key, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [child(index, inner) for index, inner in enumerate(value)]
    return value


@given(
    value=documents,
    wanted=st.lists(paths, min_size=1, max_size=3),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_as_the_model_says(value: Any, wanted: list[str], ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    expected = value
    for path in wanted:
        expected = model(expected, parse_path(path))
    out = Redaction(wanted).apply(body)
    assert out is not None
    assert json.loads(out) == expected
    lines = b"".join(b"data: %b\n" % line for line in body.split(b"\n"))
    if isinstance(value, dict) and value:
        streamed = Redaction(wanted).apply(lines + b"\n")
        assert streamed is not None
        for line in [line[6:] for line in streamed.split(b"\n") if line]:
            if len(streamed.split(b"\n")) == 3:
                again = Redaction(wanted).apply(line)
                assert again == line or json.loads(again or b"0") == json.loads(line)


@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]":,\\u0075ser 1n\n', max_size=60).map(str.encode))
def test_nothing_makes_it_fail(body: bytes) -> None:
    out = Redaction(["$.user", "$..ssn", "$[0]"]).apply(body)
    assert out is None or isinstance(out, bytes)


def test_what_is_hidden_in_the_request() -> None:
    assert Redaction(["$.user"]).hides("user")
    assert Redaction(["$..user"]).hides("user")
    assert Redaction(["$[*]"]).hides("user")
    assert Redaction(["$.metadata"]).hides("metadata", "user_id")
    assert not Redaction(["$.metadata.email", "$.a.user"]).hides("user")
    assert not Redaction(["$.metadata.email"]).hides("metadata", "user_id")


@given(unit=st.text(), other=st.text())
def test_pseudonyms_are_stable_and_tell_nothing(unit: str, other: str) -> None:
    name = pseudonym(unit, b"key")
    assert name == pseudonym(unit, b"key")
    assert (name == pseudonym(other, b"key")) == (unit == other)
    assert name != pseudonym(unit)
    assert len(unit) < 6 or unit not in name
