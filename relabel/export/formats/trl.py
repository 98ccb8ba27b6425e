"""The conversational dataset formats of TRL (https://huggingface.co/docs/trl/dataset_formats): language modeling,
prompt-completion, preference with an explicit prompt, unpaired preference (KTO).

Chat templates get the arguments of a tool call as an object and ``tools`` as TRL takes them from files: a JSON list in a
string, since schemas of different tools have no common columns. Language modeling learns from every message; the others
only from the answer that was judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from relabel.export.answers import best_answer, judged, pairs
from relabel.export.chat_messages import text_message, text_messages, with_read_arguments
from relabel.export.formats.format import Format, lines, one_each
from relabel.export.labeled_case import LabeledCase, Message
from relabel.export.left_out import LeftOut, Unfit


def language_modeling_example(case: LabeledCase) -> dict[str, Any]:
    """``messages``. Raises :class:`~relabel.export.left_out.Unfit`."""
    answer = best_answer(case)
    return {"messages": [*_prompt(case), *_said(answer)], **_tools(case)}


def prompt_completion_example(case: LabeledCase) -> dict[str, Any]:
    """``prompt`` and ``completion``. Raises :class:`~relabel.export.left_out.Unfit`."""
    answer = best_answer(case)
    return {"prompt": _prompt(case), "completion": _said(answer), **_tools(case)}


def preference_examples(case: LabeledCase) -> Iterator[dict[str, Any] | LeftOut]:
    """``prompt``, ``chosen`` and ``rejected`` of each pair."""
    for pair in pairs(case):
        if isinstance(pair, LeftOut):
            yield pair
            continue
        try:
            yield {
                "prompt": _prompt(case),
                "chosen": _said(pair.chosen),
                "rejected": _said(pair.rejected),
                **_tools(case),
            }
        except Unfit as unfit:
            yield unfit.reason


def kto_examples(case: LabeledCase) -> Iterator[dict[str, Any] | LeftOut]:
    """``prompt``, ``completion`` and ``label`` (whether it is wanted) of each judged answer."""
    for judgement in judged(case):
        if isinstance(judgement, LeftOut):
            yield judgement
            continue
        try:
            yield {
                "prompt": _prompt(case),
                "completion": _said(judgement.answer),
                "label": judgement.wanted,
                **_tools(case),
            }
        except Unfit as unfit:
            yield unfit.reason


def _prompt(case: LabeledCase) -> list[dict[str, Any]]:
    messages = [with_read_arguments(message) for message in text_messages(case.asked)]
    if messages[-1]["role"] not in ("user", "tool"):
        # A chat template would take the answer for more of the last message.
        raise Unfit(LeftOut.UNSUPPORTED_TURNS)
    return messages


def _said(answer: Message) -> list[dict[str, Any]]:
    return [with_read_arguments(text_message(answer))]


def _tools(case: LabeledCase) -> dict[str, str]:
    return {"tools": json.dumps(list(case.tools), ensure_ascii=False)} if case.tools else {}


TRL_LANGUAGE_MODELING: Final[Format] = lines(
    "trl_language_modeling", "TRL language modeling", one_each(language_modeling_example)
)
TRL_PROMPT_COMPLETION: Final[Format] = lines(
    "trl_prompt_completion", "TRL prompt-completion", one_each(prompt_completion_example)
)
TRL_PREFERENCE: Final[Format] = lines("trl_preference", "TRL preference (DPO)", preference_examples)
TRL_KTO: Final[Format] = lines("trl_kto", "TRL unpaired preference (KTO)", kto_examples)
