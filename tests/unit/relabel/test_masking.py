"""relabel.export.masking: personal data leaves every text of a case, and JSON stays JSON."""

from __future__ import annotations

import json
from typing import Any

from relabel.export.masking import Masking
from relabel.export.query import PERSONAL_DATA
from relabel.label import Label
from tests.labeled_cases import alternative, labeled_case

MAIL, OTHER, CARD = "ann@example.org", "bob@example.org", "4111 1111 1111 1111"


def masked(**parts: Any) -> tuple[Any, dict[str, int]]:
    masking = Masking(PERSONAL_DATA)
    return masking.masked(labeled_case(**parts)), dict(masking.replaced)


def test_every_text_is_masked_and_a_value_has_one_placeholder_in_a_case() -> None:
    arguments = json.dumps({"to": [MAIL], "phone": 4155552671, "amount": 4155552671, "note": {MAIL: OTHER}})
    call = {"id": "1", "type": "function", "function": {"name": "send", "arguments": arguments}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": f"I am {MAIL}, not {OTHER}"}], "name": MAIL},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": f"sent to {MAIL.upper()}"},
        {"role": "assistant", "content": f"Paid with {CARD}."},
    ]
    label = Label(corrected_answer=f"Ask {OTHER}", comment=MAIL, tags=(MAIL,), values={"why": f"{OTHER}!"})
    case, counts = masked(
        label=label, messages=messages, alternatives=[alternative("a", CARD)], tools=[{"description": MAIL}]
    )
    assert case.messages[0]["content"][0]["text"] == "I am <EMAIL_ADDRESS_1>, not <EMAIL_ADDRESS_2>"
    assert case.messages[0]["name"] == "<EMAIL_ADDRESS_1>"
    assert json.loads(case.messages[1]["tool_calls"][0]["function"]["arguments"]) == {
        "to": ["<EMAIL_ADDRESS_1>"],
        "phone": "<PHONE_NUMBER_1>",
        "amount": 4155552671,
        "note": {"<EMAIL_ADDRESS_1>": "<EMAIL_ADDRESS_2>"},
    }
    assert case.messages[1]["tool_calls"][0]["id"] == "1"
    assert case.messages[2] == {"role": "tool", "tool_call_id": "1", "content": "sent to <EMAIL_ADDRESS_1>"}
    assert case.messages[3]["content"] == "Paid with <CREDIT_CARD_1>."
    assert case.corrected_answer == "Ask <EMAIL_ADDRESS_2>"
    assert (case.comment, case.tags, case.values) == (
        "<EMAIL_ADDRESS_1>",
        ["<EMAIL_ADDRESS_1>"],
        {"why": "<EMAIL_ADDRESS_2>!"},
    )
    assert case.alternatives[0]["text"] == "<CREDIT_CARD_1>"
    assert case.alternatives[0]["id"] == "a"
    assert case.tools == [{"description": "<EMAIL_ADDRESS_1>"}]
    assert counts["PHONE_NUMBER"] == 1
    assert MAIL not in repr(case)
    assert MAIL in repr(messages)  # what was given is not changed


def test_keys_of_the_protocol_are_kept_only_where_they_are_its_own() -> None:
    arguments = json.dumps({"id": MAIL, "source": [{"type": OTHER}], "arguments": "[]"})
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [
        {"role": "user", "content": f"data: {MAIL}"},
        {"role": "assistant", "tool_calls": [call]},
    ]
    case, _ = masked(messages=messages, label=Label(values={"source": MAIL, "id": OTHER}))
    assert MAIL not in repr(case)
    assert OTHER not in repr(case)
    assert json.loads(case.messages[1]["tool_calls"][0]["function"]["arguments"])["arguments"] == "[]"


def test_only_the_kinds_that_were_asked_for() -> None:
    masking = Masking(("CREDIT_CARD",))
    case = masking.masked(labeled_case(Label(corrected_answer=f"{MAIL} {CARD}")))
    assert case.corrected_answer == f"{MAIL} <CREDIT_CARD_1>"
    assert dict(masking.replaced) == {"CREDIT_CARD": 1}


def test_another_case_begins_anew() -> None:
    masking = Masking(PERSONAL_DATA)
    for address in (MAIL, OTHER):
        case = masking.masked(labeled_case(Label(corrected_answer=address)))
        assert case.corrected_answer == "<EMAIL_ADDRESS_1>"
    assert masking.replaced == {"EMAIL_ADDRESS": 2}


def test_nothing_to_mask_changes_nothing() -> None:
    arguments = '{"a":1,  "b": "x"}'
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,4111"}}],
        },
        {"role": "assistant", "tool_calls": [call]},
    ]
    case, counts = masked(messages=messages)
    assert case.messages == messages
    assert counts == {}


def test_arguments_that_are_no_json_are_masked_as_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": f"to={MAIL}"}}
    case, _ = masked(messages=[{"role": "assistant", "tool_calls": [call]}])
    assert case.messages[0]["tool_calls"][0]["function"]["arguments"] == "to=<EMAIL_ADDRESS_1>"
