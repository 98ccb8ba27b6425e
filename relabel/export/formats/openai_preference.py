"""Pairs of answers in OpenAI's format for direct preference optimization (DPO).

Keeps to the documented input (https://platform.openai.com/docs/api-reference/fine-tuning/preference-input and
https://platform.openai.com/docs/guides/direct-preference-optimization): text only, and each output is one assistant
message, the last of its conversation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from relabel.export.answers import pairs
from relabel.export.chat_messages import text_message, text_messages
from relabel.export.formats.format import Format, lines
from relabel.export.labeled_case import LabeledCase, Message
from relabel.export.left_out import LeftOut, Unfit


def preference_examples(case: LabeledCase) -> Iterator[dict[str, Any] | LeftOut]:
    """One example a pair."""
    for pair in pairs(case):
        if isinstance(pair, LeftOut):
            yield pair
            continue
        try:
            yield {
                "input": {
                    "messages": [_sendable(message) for message in text_messages(case.asked)],
                    "tools": list(case.tools or ()),
                    "parallel_tool_calls": True,
                },
                "preferred_output": [_output(pair.chosen)],
                "non_preferred_output": [_output(pair.rejected)],
            }
        except Unfit as unfit:
            yield unfit.reason


def _output(answer: Message) -> dict[str, Any]:
    return _sendable(text_message(answer))


def _sendable(message: dict[str, Any]) -> dict[str, Any]:
    # Beside tool calls OpenAI wants no content rather than an empty one.
    return {key: value for key, value in message.items() if key != "content" or value}


OPENAI_PREFERENCE: Final[Format] = lines(
    "openai_preference", "OpenAI preference fine-tuning (DPO)", preference_examples
)
