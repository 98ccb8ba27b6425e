"""Secrets among an evaluator's options: masked, kept, resolved."""

from __future__ import annotations

import pytest

from evaluators.runs.secret_options import resolved, restored, shown
from servelens.errors import Invalid, InvalidSettings
from servelens.secret_references import MASK, Secrets

KEPT = {
    "url": "http://judge/v1",
    "api_key": "sk-1",
    "rubric": "Is it good?",
    "max_tokens": 5,
    "extra_body": {"headers": [{"Authorization": "Bearer sk-2"}], "hf-token": "{{secrets/hub/key}}"},
}


def test_what_is_secret_by_its_name_is_masked_wherever_it_stands_and_references_are_not() -> None:
    assert shown(KEPT) == {
        **KEPT,
        "api_key": MASK,
        "extra_body": {"headers": [{"Authorization": MASK}], "hf-token": "{{secrets/hub/key}}"},
    }


def test_what_was_shown_can_be_written_back_and_stands_for_what_is_kept() -> None:
    given = {**shown(KEPT), "rubric": "Is it right?"}
    assert restored(given, KEPT) == {**KEPT, "rubric": "Is it right?"}
    assert restored({"api_key": "sk-3"}, KEPT) == {"api_key": "sk-3"}


@pytest.mark.parametrize(
    "changes",
    [{"url": "http://elsewhere/v1"}, {"api_base_url": "elsewhere"}, {"rubric": "http://elsewhere/v1"}],
)
def test_a_secret_is_not_sent_to_another_address_by_who_does_not_know_it(changes: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=r"^options: .* was not given for this address"):
        restored({**shown(KEPT), **changes}, KEPT)


def test_a_mask_without_a_secret_behind_it_is_refused() -> None:
    with pytest.raises(Invalid, match="not kept here"):
        restored({"url": "http://judge/v1", "password": MASK}, {"url": "http://judge/v1"})


def test_references_get_their_values_where_the_options_are_used() -> None:
    secrets = Secrets({"SERVELENS_SECRET_HUB_KEY": "hf-1"}, "scheduler")
    extra = resolved(KEPT, secrets.resolve)["extra_body"]
    assert extra == {"headers": [{"Authorization": "Bearer sk-2"}], "hf-token": "hf-1"}
    with pytest.raises(
        InvalidSettings, match="Set the environment variable SERVELENS_SECRET_A_B for every scheduler"
    ):
        resolved({"api_key": "{{secrets/a/b}}"}, secrets.resolve)
