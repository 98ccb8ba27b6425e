"""The plain text and the numbers in a parsed body, whichever dialect it is in: found by shape, not by
address.

Known shapes: OpenAI chat, completions, embeddings and Responses (and the many servers that follow them),
Anthropic's messages, MLflow's scoring inputs (``dataframe_split``, ``dataframe_records``, ``instances``,
``inputs``) and ``predictions``, and chat bodies sent to an MLflow address. Invariant: what is not there is
``None``, never zero and never an empty text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from collector import anthropic_bodies, responses_bodies

MAX_BIGINT: Final = 2**63 - 1
"""A larger token count fits no column and is no count."""
_MLFLOW_INPUTS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")


class Answer(NamedTuple):
    """What a response says: the first choice's text and why it ended, and the token counts the backend
    gave."""

    text: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


_NO_ANSWER: Final = Answer()


def prompt_text(request: Any) -> str | None:
    """The text that the model was given: the system prompt and the contents of all messages, without roles, one
    below the other.
    """
    if not isinstance(request, dict):
        return None
    messages = request.get("messages")
    if isinstance(messages, list):
        system = anthropic_bodies.block_texts(request.get("system"))
        said = (text for message in messages if (text := _message_text(message)))
        return _joined(text for text in (*system, *said) if text)
    given = request.get("input")
    if given is not None:
        instructions = request.get("instructions")
        first = (instructions,) if isinstance(instructions, str) else ()
        items = (text for text in (*first, *responses_bodies.item_texts(given)) if text)
        return _joined(items) or _joined(_texts(given))
    prompt = request.get("prompt")
    if prompt is not None:
        return _joined(_texts(prompt))
    for name in _MLFLOW_INPUTS:
        value = request.get(name)
        if value is not None:
            if name == "dataframe_split" and isinstance(value, dict):
                value = value.get("data")
            return _joined(_texts(value))
    return None


def answer(response: Any) -> Answer:
    """What ``response`` says; all ``None`` for an error body or a shape that nobody knows."""
    if not isinstance(response, dict):
        return _NO_ANSWER
    if anthropic_bodies.is_message(response):
        return _anthropic_answer(response)
    if responses_bodies.is_response(response):
        text, finish_reason = responses_bodies.said(response), responses_bodies.finish_reason(response)
        return _with_usage(text, finish_reason, response.get("usage"))
    text = finish_reason = None
    choices = response.get("choices")
    if isinstance(choices, list):
        if choices and isinstance(first := choices[0], dict):
            message = first.get("message")
            if isinstance(message, dict):
                text = _message_text(message)
            elif isinstance(first.get("text"), str):
                text = first["text"] or None
            reason = first.get("finish_reason")
            finish_reason = reason if isinstance(reason, str) else None
    elif "predictions" in response:
        text = _joined(_texts(response["predictions"]))
    return _with_usage(text, finish_reason, response.get("usage"))


def _anthropic_answer(message: dict[str, Any]) -> Answer:
    reason, usage = message.get("stop_reason"), message.get("usage")
    answer = _with_usage(anthropic_bodies.said(message), reason if isinstance(reason, str) else None, usage)
    count = anthropic_bodies.input_tokens(usage) if isinstance(usage, dict) else None
    return answer._replace(input_tokens=count if count is not None and count <= MAX_BIGINT else None)


def _with_usage(text: str | None, finish_reason: str | None, usage: Any) -> Answer:
    if not isinstance(usage, dict):
        return Answer(text, finish_reason)
    return Answer(
        text,
        finish_reason,
        _count(usage, "prompt_tokens", "input_tokens"),
        _count(usage, "completion_tokens", "output_tokens"),
    )


def _message_text(message: Any) -> str | None:
    """Content, then refusal, then tool calls as ``name(arguments)``."""
    if not isinstance(message, dict):
        return message if isinstance(message, str) else None
    content = message.get("content")
    calls = message.get("tool_calls") or message.get("function_call")
    refusal = message.get("refusal")
    if isinstance(content, str) and not calls and not refusal:
        return content or None
    pieces = [content] if isinstance(content, str) else list(anthropic_bodies.block_texts(content))
    if isinstance(refusal, str):
        pieces.append(refusal)
    for call in calls if isinstance(calls, list) else [calls]:
        if isinstance(call, dict):
            function = call.get("function", call)
            if isinstance(function, dict) and function.get("name"):
                pieces.append(f"{function['name']}({_argument_text(function.get('arguments'))})")
    return _joined(piece for piece in pieces if piece)


def _argument_text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else _joined(_texts(arguments)) or ""


def _texts(value: Any) -> Iterator[str]:
    """All texts in ``value``, in their order; a conversation or an answer in it counts as such."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        whole = (
            prompt_text(value) if "messages" in value else answer(value).text if "choices" in value else None
        )
        if whole is not None:
            yield whole
        elif "role" in value and "content" in value:
            if text := _message_text(value):
                yield text
        else:
            for item in value.values():
                yield from _texts(item)


def _joined(texts: Iterator[str]) -> str | None:
    return "\n".join(texts) or None


def _count(usage: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_BIGINT:
            return value
    return None
