"""ShareGPT's conversations with tools, as LLaMA-Factory reads them
(https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md and its ``SharegptDatasetConverter``).

``human`` and ``observation`` stand at odd places, ``gpt`` and ``function_call`` at even ones, and one of those comes last.
A ``function_call`` is the JSON of a call (``name``, ``arguments``), or of a list of several at once. A conversation
that does not take turns like that, such as one with two tool results in a row, is left out.
"""

from __future__ import annotations

import json
from typing import Any, Final

from relabel.export.answers import best_answer
from relabel.export.chat_messages import read_arguments, text_message, text_messages
from relabel.export.formats.format import Format, lines, one_each
from relabel.export.labeled_case import LabeledCase
from relabel.export.left_out import LeftOut, Unfit

_SPEAKERS: Final = {"user": "human", "tool": "observation", "assistant": "gpt"}
_ASKING: Final = ("human", "observation")


def sharegpt_example(case: LabeledCase) -> dict[str, Any]:
    """The record. Raises :class:`~relabel.export.left_out.Unfit`."""
    answer = text_message(best_answer(case))
    asked = text_messages(case.asked)
    system = asked.pop(0)["content"] if asked[0]["role"] == "system" else ""
    conversation = [_turn(message) for message in (*asked, answer)]
    if len(conversation) % 2 or any(
        (turn["from"] in _ASKING) != (place % 2 == 0) for place, turn in enumerate(conversation)
    ):
        raise Unfit(LeftOut.UNSUPPORTED_TURNS)
    tools = json.dumps(list(case.tools), ensure_ascii=False) if case.tools else ""
    return {"conversations": conversation, "system": system, "tools": tools}


def _turn(message: dict[str, Any]) -> dict[str, str]:
    role = message["role"]
    if role not in _SPEAKERS:
        raise Unfit(LeftOut.UNSUPPORTED_TURNS)  # a second system prompt
    calls = message.get("tool_calls")
    if not calls:
        return {"from": _SPEAKERS[role], "value": message["content"]}
    if message["content"]:
        raise Unfit(LeftOut.UNSUPPORTED_TOOLS)  # words beside a call have no place
    read = [_call(call) for call in calls]
    return {
        "from": "function_call",
        "value": json.dumps(read[0] if len(read) == 1 else read, ensure_ascii=False),
    }


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or "name" not in function:
        raise Unfit(LeftOut.UNSUPPORTED_TOOLS)
    return {"name": function["name"], "arguments": read_arguments(function)}


SHAREGPT: Final[Format] = lines("sharegpt", "ShareGPT", one_each(sharegpt_example))
