"""Training examples in OpenAI's chat format for supervised fine-tuning.

Keeps to the documented input (https://platform.openai.com/docs/api-reference/fine-tuning/chat-input and
https://platform.openai.com/docs/guides/supervised-fine-tuning): the roles system, user, assistant and tool,
non-empty content unless the assistant calls a tool, the last message from the assistant. Only the last answer
was judged, so earlier assistant messages carry ``weight: 0``, the documented way of not training on them.
"""

from __future__ import annotations

from typing import Any, Final

from relabel.export.answers import best_answer
from relabel.export.chat_messages import openai_message, openai_messages
from relabel.export.formats.format import Format, lines, one_each
from relabel.export.labeled_case import LabeledCase


def chat_example(case: LabeledCase) -> dict[str, Any]:
    """The example. Raises :class:`~relabel.export.left_out.Unfit`."""
    answer = best_answer(case)
    asked = openai_messages(case.asked)
    last = openai_message(answer)
    for message in asked:
        if message["role"] == "assistant":
            message["weight"] = 0
    example: dict[str, Any] = {"messages": [*asked, last]}
    if case.tools:
        example["tools"] = list(case.tools)
    return example


OPENAI_CHAT: Final[Format] = lines("openai_chat", "OpenAI chat fine-tuning", one_each(chat_example))
