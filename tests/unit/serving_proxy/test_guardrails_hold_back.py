"""However a text is cut into pieces, what is let go is what the guardrails make of the whole."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving_proxy.endpoint import Guardrails
from serving_proxy.guardrails.blocked import Blocked
from serving_proxy.guardrails.hold_back import MAX_HELD, HeldText
from serving_proxy.guardrails.screen import screen_of

MASK = screen_of(Guardrails(pii="mask"), "output")
BLOCK = screen_of(Guardrails(pii="block"), "output")
WORDS = screen_of(Guardrails(invalid_keywords=("banned", "project x", "秘密", "one two three")), "output")
BOTH = screen_of(Guardrails(invalid_keywords=("banned",), pii="mask"), "output")

snippets = st.sampled_from(
    [
        *(
            "bob@example.com",
            "bob@example",
            "@",
            "+1 (415) 555-2671",
            "+49 30 901820",
            "415-555-2671",
            "phone",
            "tel. ",
        ),
        *(
            "4111 1111 1111 1111",
            "4111",
            "1111",
            "378282246310005",
            "DE89 3704 0044 0532 0130 00",
            "GB29 NWBK",
            "DE89",
        ),
        *(
            "219-09-9998",
            "ssn ",
            "8.8.8.8",
            "version",
            "2001:db8::8a2e:370",
            "030 901820",
            "2024-01-15",
            "12/26",
            "3.14",
        ),
        *(
            " ",
            " ",
            " ",
            "\n",
            "-",
            ".",
            ", ",
            "(",
            ")",
            "+",
            "0",
            "1",
            "9",
            ":",
            "a",
            "The fox",
            "banned",
            "banana",
            "project",
        ),
        *(
            "x",
            "project x",
            "秘密",
            "这是",
            "e\u0301",
            "one",
            "two",
            "three",
            "\u00a0",
            "'",
            "x" * 400,
            "1 " * 60,
            "7" * 300,
        ),
    ]
)
texts = st.lists(snippets, max_size=14).map("".join) | st.text(max_size=60)


def pieces(text: str, cuts: set[int]) -> list[str]:
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    return [text[start:stop] for start, stop in pairwise(edges)]


@settings(max_examples=600)
@given(text=texts, cuts=st.sets(st.integers(1, 500), max_size=60))
@example(text="call 4111 1111 1111 1111 12/26, or 415-555-2671.", cuts=set(range(1, 60)))
def test_masked_as_the_whole_is(text: str, cuts: set[int]) -> None:
    held = HeldText(MASK)
    released = ""
    given_in = 0
    for piece in pieces(text, cuts):
        given_in += len(piece)
        released += held.feed(piece)
        assert len(held._pending) <= MAX_HELD
    assert released + held.flush() == MASK.text(text)


@settings(max_examples=400)
@given(
    text=texts, cuts=st.sets(st.integers(1, 500), max_size=60), screen=st.sampled_from([BLOCK, WORDS, BOTH])
)
def test_blocked_as_the_whole_is_and_nothing_of_it_is_sent(text: str, cuts: set[int], screen: object) -> None:
    assert screen in (BLOCK, WORDS, BOTH)
    used = BLOCK if screen is BLOCK else WORDS if screen is WORDS else BOTH
    try:
        expected: str | None = used.text(text)
    except Blocked:
        expected = None
    held = HeldText(used)
    released = ""
    try:
        for piece in pieces(text, cuts):
            released += held.feed(piece)
        released += held.flush()
    except Blocked:
        assert expected is None
        used.text(released)  # what was sent has nothing that would have been blocked
    else:
        assert released == expected


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Hello wor", "Hello "),
        ("In 2024 ", "In "),
        ("In 2024 we ", "In 2024 we "),
        ("这是一个", "这是一个"),
        ("a\nb", "a\n"),
    ],
)
def test_what_can_go_goes_at_once(text: str, first: str) -> None:
    assert HeldText(MASK).feed(text) == first


def test_phrases_wait_for_their_last_word() -> None:
    held = HeldText(WORDS)
    assert held.feed("see one two ") == "see "
    assert held.feed("four five six ") == "one two four "
