"""Sentences are the same whether a text comes whole or in pieces, and all of them together are the text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_proxy.gateway import Guardrails
from serving_proxy.guardrails.screen import screen_of
from serving_proxy.guardrails.sentences import MAX_SENTENCE, HeldSentence, sentences

TEXTS = st.lists(
    st.sampled_from(
        [
            *(
                "a",
                "word",
                " ",
                "  ",
                ".",
                "!",
                "?",
                "...",
                '"',
                ")",
                "\n",
                "1.",
                "e.g. ",
                "。",
                "！",
                "日本語",
                "👩‍👩‍👧",
                "e\u0301",
            ),
            *("x" * 300, "This is a sentence. ", "Is it? ", "\u00a0", "\r\n"),
        ]
    ),
    max_size=40,
).map("".join)


@given(text=TEXTS, size=st.integers(1, 50))
@settings(max_examples=300, deadline=None)
def test_a_text_in_pieces_has_the_sentences_of_the_whole(text: str, size: int) -> None:
    held = HeldSentence(screen_of(Guardrails(), "output"))
    let_go = [held.feed(text[start : start + size]) for start in range(0, len(text), size)]
    let_go.append(held.flush())
    assert [part for piece in let_go for part in sentences(piece)] == sentences(text)
    assert "".join(let_go) == text
    assert "".join(sentences(text)) == text
    assert all(0 < len(part) <= MAX_SENTENCE for part in sentences(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I like this a lot. You do not? No.", ["I like this a lot. ", "You do not? No."]),
        ("One line of text\nand another line\n", ["One line of text\n", "and another line\n"]),
        ('He said "come here!" and left it.', ['He said "come here!" ', "and left it."]),
        (
            "今日はとても良い天気ですね、本当に。明日も良い天気です。",
            ["今日はとても良い天気ですね、本当に。", "明日も良い天気です。"],
        ),
        ("Version 1.2.3 of it, at 10.5 percent", ["Version 1.2.3 of it, at 10.5 percent"]),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_the_other_guardrails_look_first() -> None:
    held = HeldSentence(screen_of(Guardrails(pii="mask"), "output"))
    text = "Please write to bob@example.com today. And then wait"
    let_go = [held.feed(character) for character in text]
    assert "".join(let_go) == "Please write to <EMAIL_ADDRESS> today. "
    assert held.flush() == "And then wait"


def test_an_answer_of_nothing_but_marks_holds_nobody_up() -> None:
    held = HeldSentence(screen_of(Guardrails(), "output"))
    began = time.monotonic()
    let_go = [held.feed("!!!") for _ in range(7_000)]
    assert time.monotonic() - began < 5.0  # some milliseconds; a look at each mark anew took a minute
    assert "".join(let_go) + held.flush() == "!" * 21_000
