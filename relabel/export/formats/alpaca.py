"""Alpaca's instruction records with ``system`` and ``history``, as LLaMA-Factory reads them
(https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md).

The format has one system prompt and turns of a question and an answer, and nothing else: conversations with tools, or with
two messages of a kind in a row, are left out.
"""

from __future__ import annotations

from typing import Any, Final

from relabel.export.answers import best_answer
from relabel.export.chat_messages import text_message, text_messages
from relabel.export.formats.format import Format, lines, one_each
from relabel.export.labeled_case import LabeledCase
from relabel.export.left_out import LeftOut, Unfit


def alpaca_example(case: LabeledCase) -> dict[str, Any]:
    """The record. Raises :class:`~relabel.export.left_out.Unfit`."""
    answer = text_message(best_answer(case))
    asked = text_messages(case.asked)
    if case.tools or any(
        "tool_calls" in message or message["role"] == "tool" for message in (*asked, answer)
    ):
        raise Unfit(LeftOut.UNSUPPORTED_TOOLS)
    system = asked.pop(0)["content"] if asked[0]["role"] == "system" else ""
    turns = [message["content"] for message in asked]
    roles = [message["role"] for message in asked]
    if len(roles) % 2 == 0 or any(
        role != ("assistant" if place % 2 else "user") for place, role in enumerate(roles)
    ):
        raise Unfit(LeftOut.UNSUPPORTED_TURNS)
    return {
        "instruction": turns[-1],
        "input": "",
        "output": answer["content"],
        "system": system,
        "history": [list(turn) for turn in zip(turns[:-1:2], turns[1:-1:2], strict=True)],
    }


ALPACA: Final[Format] = lines("alpaca", "Alpaca", one_each(alpaca_example))
