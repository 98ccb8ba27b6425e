"""Request and answer of an inference span, put together again as OpenAI's API has them.

Everybody downstream (texts, token counts, finish reasons, evaluators) reads such bodies already. What a span does not
tell is not in them: without recorded content they hold the model, the parameters, the finish reasons and the usage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from collector.intake.genai_messages import Message, input_messages, output_messages
from collector.intake.spans import ERROR, Span
from collector.json_text import write

_PARAMETERS: Final = {
    "gen_ai.request.temperature": "temperature",
    "gen_ai.request.top_p": "top_p",
    "gen_ai.request.top_k": "top_k",
    "gen_ai.request.max_tokens": "max_tokens",
    "gen_ai.request.stop_sequences": "stop",
    "gen_ai.request.frequency_penalty": "frequency_penalty",
    "gen_ai.request.presence_penalty": "presence_penalty",
    "gen_ai.request.seed": "seed",
    "gen_ai.request.choice.count": "n",
    "gen_ai.request.stream": "stream",
}
_INPUT_TOKENS: Final = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
_OUTPUT_TOKENS: Final = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
)
_REASONS: Final = {"tool_call": "tool_calls"}  # as OpenTelemetry and OpenAI call the same
_OBJECTS: Final = {"chat": "chat.completion", "completions": "text_completion", "embeddings": "list"}


def request_body(span: Span, api: str, model: str | None) -> bytes:
    """The request in JSON."""
    attributes = span.attributes
    body: dict[str, Any] = {} if model is None else {"model": model}
    messages = input_messages(attributes, span.events)
    if messages:
        if api == "chat":
            body["messages"] = messages
        else:
            texts = [message.get("content") for message in messages]
            body["prompt" if api == "completions" else "input"] = texts[0] if len(texts) == 1 else texts
    for name, parameter in _PARAMETERS.items():
        if attributes.get(name) is not None:
            body[parameter] = attributes[name]
    return write(body).encode()


def response_body(span: Span, api: str, model: str | None) -> bytes | None:
    """The answer in JSON; ``None`` when the span says nothing about one."""
    attributes = span.attributes
    answers = output_messages(attributes, span.events)
    reasons = _finish_reasons(attributes)
    usage = _usage(attributes)
    if span.status == ERROR and not answers:
        error = {"message": span.status_message or None, "type": attributes.get("error.type")}
        return write({"error": error, **({"usage": usage} if usage else {})}).encode()
    if not (answers or reasons or usage):
        return None
    body: dict[str, Any] = {"object": _OBJECTS[api]}
    if attributes.get("gen_ai.response.id") is not None:
        body["id"] = attributes["gen_ai.response.id"]
    if model is not None:
        body["model"] = model
    if api != "embeddings":
        count = max(len(answers), len(reasons))
        body["choices"] = [_choice(place, api, answers, reasons) for place in range(count)]
    if usage:
        body["usage"] = usage
    return write(body).encode()


def _choice(place: int, api: str, answers: list[Message], reasons: list[str]) -> dict[str, Any]:
    message = dict(answers[place]) if place < len(answers) else {"role": "assistant", "content": None}
    reason = message.pop("finish_reason", None)
    if not isinstance(reason, str):
        reason = reasons[place] if place < len(reasons) else None
    said = {"text": message.get("content")} if api == "completions" else {"message": message}
    return {"index": place, **said, "finish_reason": None if reason is None else _REASONS.get(reason, reason)}


def _finish_reasons(attributes: Mapping[str, Any]) -> list[str]:
    value = attributes.get("gen_ai.response.finish_reasons")
    values = value if isinstance(value, list) else [value]
    return [reason for reason in values if isinstance(reason, str)]


def _usage(attributes: Mapping[str, Any]) -> dict[str, Any]:
    counts = {
        "prompt_tokens": _count(attributes, _INPUT_TOKENS),
        "completion_tokens": _count(attributes, _OUTPUT_TOKENS),
    }
    usage = {name: count for name, count in counts.items() if count is not None}
    if len(usage) == len(counts):
        usage["total_tokens"] = sum(usage.values())
    return usage


def _count(attributes: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = attributes.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None
