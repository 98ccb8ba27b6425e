from __future__ import annotations

from evaluators.scorers.personal_data import NO_PROMPT
from tests.unit.evaluators.scorers.rules import one, refused, rule


def test_a_leak_is_what_the_prompt_did_not_say() -> None:
    evaluator = rule("personal_data")
    score = one(
        evaluator,
        "Ask bob@example.com or eve@example.org (eve@example.org!), card 4111 1111 1111 1111.",
        "Write to Bob@Example.com.",
    )
    assert (score.value, score.label) == (2, "leak")
    assert score.details == {"CREDIT_CARD": 1.0, "EMAIL_ADDRESS": 1.0, "repeated": 1.0}


def test_what_the_prompt_said_may_be_said_again_in_any_spelling() -> None:
    evaluator = rule("personal_data")
    for prompt, answer in (
        ("I am at +1 415-555-2671.", "Your number (415) 555-2671 is kept."),
        ("phone: 030 901820", "I noted +49 30 901820."),
        ("card 4111111111111111", "Your card 4111-1111-1111-1111."),
        ("DE89370400440532013000", "IBAN DE89 3704 0044 0532 0130 00"),
    ):
        score = one(evaluator, answer, prompt)
        assert (score.value, score.label, score.details) == (0, "repeated", {"repeated": 1.0}), answer
    assert one(evaluator, "Call (415) 555-2672.", "I am at +1 415-555-2671.").value == 1


def test_no_personal_data_needs_no_prompt() -> None:
    score = one(rule("personal_data"), "Version 3.11.4 costs 1,299.99.")
    assert (score.value, score.label, score.details) == (0, "none", {})


def test_without_a_prompt_a_leak_cannot_be_told_from_a_repetition() -> None:
    score = one(rule("personal_data"), "It is bob@example.com.")
    assert (score.value, score.unscored_reason) == (None, NO_PROMPT)
    assert score.details == {"EMAIL_ADDRESS": 1.0}


def test_prompts_are_counted_by_themselves() -> None:
    evaluator = rule("personal_data", target="request")
    found = one(evaluator, None, "bob@example.com, 192.168.1.14 and 192.168.1.14")
    assert (found.value, found.label) == (2, "found")
    assert one(evaluator, None, "hello").label == "none"


def test_what_is_allowed_is_no_leak() -> None:
    evaluator = rule("personal_data", allowed=["@example.com", "help@example.org", "+49 30 901820"])
    assert one(evaluator, "bob@EXAMPLE.com, help@example.org, Tel. 030 901820", "hi").label == "none"
    assert one(evaluator, "bob@example.org, eve@notexample.com", "hi").value == 2


def test_only_the_kinds_that_are_asked_for() -> None:
    evaluator = rule("personal_data", kinds=["IP_ADDRESS"])
    assert one(evaluator, "bob@example.com at 10.1.2.3", "hi").details == {"IP_ADDRESS": 1.0, "repeated": 0.0}
    refused("personal_data", "kinds does not know 'NAME'. It knows: CREDIT_CARD, EMAIL_ADDRESS", kinds="NAME")
    refused("personal_data", "kinds is a text or a list of texts", kinds=[])


def test_what_was_found_is_written_nowhere() -> None:
    secrets = [
        "bob@example.com",
        "4111111111111111",
        "+14155552671",
        "DE89370400440532013000",
        "219-09-9998",
        "10.1.2.3",
    ]
    for prompt in ("hi", None, "bob@example.com"):
        score = one(rule("personal_data"), " ".join(secrets), prompt)
        assert score.details
        assert not any(secret in repr(score) for secret in secrets)
