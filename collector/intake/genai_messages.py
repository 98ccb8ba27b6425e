"""What was said, as spans tell it, in the shape of OpenAI's chat messages.

Understood are the semantic conventions of OpenTelemetry from 1.37 (``gen_ai.input.messages`` with ``parts``), those
before (messages as span events, ``gen_ai.prompt`` and ``gen_ai.completion`` on events), and the numbered attributes of
OpenLLMetry (``gen_ai.prompt.0.content``) and OpenInference (``llm.input_messages.0.message.content``).
Sources: https://opentelemetry.io/docs/specs/semconv/gen-ai/, https://github.com/traceloop/openllmetry,
https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md. What is of no known shape is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from collector.intake.spans import SpanEvent
from collector.json_text import NOT_JSON, parse, write

Message = dict[str, Any]

DETAILS: Final = "gen_ai.client.inference.operation.details"
_ROLE_EVENTS: Final = {
    f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool", "developer")
}


def input_messages(attributes: Mapping[str, Any], events: Sequence[SpanEvent]) -> list[Message]:
    """The conversation that the model was given; empty when the span does not tell."""
    for source in (attributes, *_details(events)):
        given = _messages(source.get("gen_ai.input.messages"), "user")
        told = _messages(_with_parts(source.get("gen_ai.system_instructions")), "system")
        if given or told:
            return told + given
    for event in events:
        if event.name == "gen_ai.content.prompt":
            return _messages(event.attributes.get("gen_ai.prompt"), "user")
    said = [
        _message(dict(event.attributes), _ROLE_EVENTS[event.name])
        for event in events
        if event.name in _ROLE_EVENTS
    ]
    return (
        [message for messages in said for message in messages]
        or _messages(attributes.get("gen_ai.prompt"), "user")
        or _numbered(attributes, "gen_ai.prompt.", "user")
        or _numbered(attributes, "llm.input_messages.", "user")
        or _messages(attributes.get("input.value"), "user")
    )


def output_messages(attributes: Mapping[str, Any], events: Sequence[SpanEvent]) -> list[Message]:
    """The model's answers, one for each choice, some with a ``finish_reason``; empty when the span does not tell."""
    for source in (attributes, *_details(events)):
        answers = _messages(source.get("gen_ai.output.messages"), "assistant")
        if answers:
            return answers
    for event in events:
        if event.name == "gen_ai.content.completion":
            return _messages(event.attributes.get("gen_ai.completion"), "assistant")
    choices = [_choice(event.attributes) for event in events if event.name == "gen_ai.choice"]
    return (
        choices
        or _messages(attributes.get("gen_ai.completion"), "assistant")
        or _numbered(attributes, "gen_ai.completion.", "assistant")
        or _numbered(attributes, "llm.output_messages.", "assistant")
        or _messages(attributes.get("output.value"), "assistant")
    )


def _details(events: Sequence[SpanEvent]) -> list[Mapping[str, Any]]:
    return [event.attributes for event in events if event.name == DETAILS]


def _with_parts(instructions: Any) -> Any:
    value = _parsed(instructions)
    return [{"role": "system", "parts": value}] if isinstance(value, list) else value


def _parsed(value: Any) -> Any:
    """Instrumentations write structures as JSON, since most languages have no structured attributes yet."""
    if not isinstance(value, str):
        return value
    found = parse(value) if value.lstrip()[:1] in ("[", "{") else NOT_JSON
    return value if found is NOT_JSON else found


def _messages(value: Any, role: str) -> list[Message]:
    value = _parsed(value)
    if isinstance(value, str):
        return [{"role": role, "content": value}] if value else []
    if isinstance(value, dict):
        inner = value.get("messages")
        value = inner if isinstance(inner, list) else [value]
    if not isinstance(value, list):
        return []
    return [message for item in value for message in _message(item, role)]


def _message(item: Any, role: str) -> list[Message]:
    """One message; several where results of tools are parts of it, since they are messages of their own in a chat."""
    if isinstance(item, str):
        return [{"role": role, "content": item}]
    if not isinstance(item, dict):
        return []
    parts = item.get("parts")
    named = item.get("role")
    role = named if isinstance(named, str) and named else role
    message: Message = {"role": role}
    results: list[Message] = []
    if isinstance(parts, list):
        message |= _from_parts(parts, results)
    else:
        message["content"] = _parsed(item.get("content"))
        calls = _parsed(item.get("tool_calls"))
        if isinstance(calls, list) and calls:
            message["tool_calls"] = calls
        if role == "tool" and item.get("id"):
            message["tool_call_id"] = item["id"]
    for name in ("name", "finish_reason", "tool_call_id"):
        if item.get(name):
            message[name] = item[name]
    if results and message.get("content") is None and "tool_calls" not in message:
        return results
    return [message, *results]


def _from_parts(parts: Sequence[Any], results: list[Message]) -> Message:
    content: list[Any] = []
    calls: list[Any] = []
    message: Message = {}
    for part in parts:
        if isinstance(part, str):
            part = {"type": "text", "content": part}
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if kind == "tool_call":
            calls.append(_call(part.get("id"), part.get("name"), part.get("arguments")))
        elif kind == "tool_call_response":
            answer = part.get("response", part.get("result"))
            results.append({"role": "tool", "tool_call_id": part.get("id"), "content": _text(answer)})
        elif kind == "reasoning":
            message["reasoning_content"] = message.get("reasoning_content", "") + _text(part.get("content"))
        elif kind == "text" or (kind is None and "content" in part):
            content.append({"type": "text", "text": _text(part.get("content"))})
        elif kind == "uri" and part.get("modality") == "image":
            content.append({"type": "image_url", "image_url": {"url": part.get("uri")}})
        else:
            content.append(part)
    if calls:
        message["tool_calls"] = calls
    is_plain = len(content) == 1 and content[0].get("type") == "text"
    message["content"] = content[0]["text"] if is_plain else content or None
    return message


def _choice(attributes: Mapping[str, Any]) -> Message:
    inner = _parsed(attributes.get("message"))
    fields = (
        inner
        if isinstance(inner, dict)
        else {"content": inner if inner is not None else attributes.get("content")}
    )
    calls = attributes.get("tool_calls")
    found = _message({**({"tool_calls": calls} if calls else {}), **fields}, "assistant")[0]
    reason = attributes.get("finish_reason")
    return {**found, "finish_reason": reason} if reason else found


def _call(ident: Any, name: Any, arguments: Any) -> Message:
    return {
        "id": ident,
        "type": "function",
        "function": {"name": name, "arguments": _text(arguments)},
    }


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else write(value)


def _numbered(attributes: Mapping[str, Any], prefix: str, role: str) -> list[Message]:
    """Messages whose members are attributes of their own: ``<prefix><number>.[message.]<member>``."""
    tree: dict[str, Any] = {}
    for name, value in attributes.items():
        if name.startswith(prefix):
            _plant(tree, name[len(prefix) :].split("."), value)
    found: list[Message] = []
    for branch in _in_order(tree):
        fields = branch.get("message", branch) if isinstance(branch, dict) else None
        if not isinstance(fields, dict):
            continue
        parts = [_content(part) for part in _in_order(fields.get("contents"))]
        content = fields.get("content") if not parts else [part for part in parts if part]
        message: Message = {"role": fields.get("role") or role, "content": content}
        calls = [_numbered_call(call) for call in _in_order(fields.get("tool_calls"))]
        if calls:
            message["tool_calls"] = calls
        for name in ("finish_reason", "tool_call_id", "name"):
            if fields.get(name):
                message[name] = fields[name]
        found.append(message)
    return found


def _plant(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for step in path[:-1]:
        branch = tree.setdefault(step, {})
        if not isinstance(branch, dict):
            return
        tree = branch
    tree[path[-1]] = value


def _in_order(tree: Any) -> list[Any]:
    if not isinstance(tree, dict):
        return []
    return [tree[key] for key in sorted((key for key in tree if key.isdecimal()), key=int)]


def _content(part: Any) -> Any:
    inner = part.get("message_content") if isinstance(part, dict) else None
    if isinstance(inner, dict) and isinstance(inner.get("text"), str):
        return {"type": "text", "text": inner["text"]}
    return inner


def _numbered_call(call: Any) -> Message:
    inner = call.get("tool_call", call) if isinstance(call, dict) else {}
    function = inner.get("function", inner) if isinstance(inner, dict) else {}
    function = function if isinstance(function, dict) else {}
    return _call(
        inner.get("id") if isinstance(inner, dict) else None, function.get("name"), function.get("arguments")
    )
