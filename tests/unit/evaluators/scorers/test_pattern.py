from __future__ import annotations

import time

from evaluators.evaluator import TIMED_OUT
from tests.unit.evaluators.scorers.rules import one, refused, rule


def test_what_must_and_what_must_not_be_there() -> None:
    evaluator = rule("pattern", must_match=[r"\bT-\d+\b", "(?i)thank"], must_not_match="(?i)competitor")
    assert one(evaluator, "Thank you: ticket T-12.").value == 1
    assert one(evaluator, "Thank you: ticket T-12.").label == "ok"
    missing = one(evaluator, "thanks, no ticket; ask a Competitor")
    assert (missing.value, missing.label) == (0, "missing")
    assert missing.details == {"pattern": r"\bT-\d+\b", "missing": 1.0, "forbidden": 1.0}
    forbidden = one(evaluator, "Thank you: ticket T-12. Our COMPETITOR is worse.")
    assert (forbidden.value, forbidden.label) == (0, "forbidden")
    assert forbidden.details["pattern"] == "(?i)competitor"


def test_the_ends_of_a_text() -> None:
    whole = rule("pattern", must_match=r"\A(?:yes|no)\Z")
    assert [one(whole, text).value for text in ("yes", "no", "yes.", "oh no")] == [1, 1, 0, 0]


def test_an_expression_without_end_costs_one_text_its_score() -> None:
    evaluator = rule("pattern", must_match=r"(a|aa)+$", timeout_ms=20)
    started = time.monotonic()
    score = one(evaluator, "a" * 60 + "b")
    assert score.unscored_reason == TIMED_OUT
    assert score.details == {"pattern": "(a|aa)+$"}
    assert time.monotonic() - started < 5
    assert one(evaluator, "aaa").value == 1


def test_options_that_make_no_sense() -> None:
    refused("pattern", "give must_match, must_not_match or both")
    refused("pattern", r"must_match\[1\] is no regular expression: .*\('\(a'\)", must_match=["a", "(a"])
    refused("pattern", r"must_not_match\[0\] is no regular expression", must_not_match="[")
    refused("pattern", "must_match is a text or a list of texts", must_match=[])
    refused("pattern", "must_match is a list of texts, and 7 is none.*in quotes", must_match=[7])
    refused("pattern", "timeout_ms is a number of at least 1, not 0", must_match="a", timeout_ms=0)
