"""Words that are not allowed are found however they are written, and only as whole words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servelens.errors import InvalidSettings
from serving_proxy.guardrails.keywords import MAX_KEYWORD, Keywords

MANY = tuple(f"filler{number}" for number in range(60))


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("secret", "a Secret."),
        ("secret", "SECRET"),
        ("Straße", "die STRASSE ist"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
        ("café", "un cafe\u0301 noir"),
        ("banned", "ｂａｎｎｅｄ"),
        ("banned", "ban\u200bned and ban\u00adned"),
        ("project x", "about Project \n X, then"),
        ("c++", "I write C++."),
        ("秘密", "这是秘密文件"),
        ("비밀", "그것은 비밀이다"),
        ("İstanbul", "İSTANBUL"),
    ],
)
@pytest.mark.parametrize("others", [(), MANY])
def test_found(word: str, text: str, others: tuple[str, ...]) -> None:
    assert Keywords((*others, word)).are_in(text)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("secret", "secretary, undersecret, secret_key"),
        ("ass", "The class passes the assessment."),
        ("project x", "project xylophone, projectx, project-x"),
        ("c++", "c++11"),
        ("banned", "ban ned"),
    ],
)
@pytest.mark.parametrize("others", [(), MANY])
def test_not_found(word: str, text: str, others: tuple[str, ...]) -> None:
    assert not Keywords((*others, word)).are_in(text)


def test_what_ended_before_the_start_does_not_count() -> None:
    keywords = Keywords(("secret",))
    assert not keywords.are_in("secret and more", 7)
    assert keywords.are_in("no secret", 3)


@pytest.mark.parametrize("word", ["", "  ", "\u200b", "x" * (MAX_KEYWORD + 1)])
def test_unusable_keywords_are_refused(word: str) -> None:
    with pytest.raises(InvalidSettings, match="keyword"):
        Keywords((word,))


@given(word=st.text(min_size=1, max_size=20), before=st.text(max_size=10), after=st.text(max_size=10))
def test_a_keyword_among_others_is_found(word: str, before: str, after: str) -> None:
    try:
        keywords = Keywords((word,))
    except InvalidSettings:
        return
    assert keywords.are_in(f"{before} . {word} . {after}")
