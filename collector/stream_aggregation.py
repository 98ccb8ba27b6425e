"""A stream of events becomes the one answer that a call without ``stream`` would have given.

Invariant: how the bytes were cut into chunks does not matter, and nothing that came is dropped: what is no
JSON goes to ``unparsed_events`` of the answer. A cut stream gives what came until then, with a null
``finish_reason``.

The shapes are those of OpenAI's ``chat.completion.chunk`` and ``text_completion``
(https://platform.openai.com/docs/api-reference/chat/streaming) and of the servers that follow it: deltas of
one choice are merged field by field, texts joined, lists of texts or token probabilities lengthened, tool
calls told apart by their ``index``. Fields that nobody knows are kept as the first chunk has them. Streams of
OpenAI's Responses API and of Anthropic's Messages API have modules of their own.
"""

from __future__ import annotations

from typing import Any, Final

from collector import anthropic_bodies, responses_bodies
from collector.event_stream import event_data
from collector.json_text import NOT_JSON, parse

_DONE: Final = b"[DONE]"
_CHUNK_KINDS: Final = ("chat.completion.chunk", "text_completion", "text_completion.chunk")
_WHOLE: Final = frozenset({"role", "id", "type", "index"})
"""Delta fields that come whole: a repetition is no continuation."""


def aggregate(body: bytes) -> dict[str, Any] | None:
    """The one answer in the server-sent events of ``body``; ``None`` when they hold no completion and no
    error."""
    chunks: list[dict[str, Any]] = []
    unparsed: list[str] = []
    for data in event_data(body):
        if data.strip() == _DONE:
            continue
        chunk = parse(data)
        if chunk is NOT_JSON or not isinstance(chunk, dict):
            unparsed.append(data.decode("utf-8", "replace"))
        else:
            chunks.append(chunk)
    answer = _whole(chunks)
    if answer is not None and unparsed:
        answer["unparsed_events"] = unparsed
    return answer


def _whole(chunks: list[dict[str, Any]]) -> dict[str, Any] | None:
    for chunk in chunks:
        if chunk.get("type") != "ping":  # which any of them may send at any time
            if anthropic_bodies.is_event(chunk):
                return anthropic_bodies.message_of(chunks)
            if responses_bodies.is_event(chunk):
                return responses_bodies.response_of(chunks)
            break
    return _completion(chunks)


def _completion(chunks: list[dict[str, Any]]) -> dict[str, Any] | None:
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    is_chat = False
    for chunk in chunks:
        for name, value in chunk.items():
            if name == "choices" and isinstance(value, list):
                for choice in value:
                    if isinstance(choice, dict):
                        is_chat = is_chat or "delta" in choice or "message" in choice
                        _add_choice(choices, choice)
            elif answer.get(name) is None or (name == "usage" and value is not None):
                answer[name] = value
    if not choices and "choices" not in answer and answer.get("object") not in _CHUNK_KINDS:
        if not isinstance(answer.get("error"), dict | str):
            return None
    else:
        is_chat = is_chat or answer.get("object") == "chat.completion.chunk"
        answer["object"] = "chat.completion" if is_chat else "text_completion"
        answer["choices"] = [_finished(choices[index], is_chat) for index in sorted(choices)]
    return answer


def _add_choice(choices: dict[int, dict[str, Any]], choice: dict[str, Any]) -> None:
    index = choice.get("index")
    if not isinstance(index, int):
        index = 0
    merged = choices.get(index)
    if merged is None:
        merged = choices[index] = {"index": index}
    for name, value in choice.items():
        if name in ("delta", "message"):
            if isinstance(value, dict):
                message = merged.setdefault("message", {})
                _merge(message, value)
        elif name == "text":
            _merge(merged, {"text": value})
        elif name == "logprobs":
            _merge(merged, {"logprobs": value})
        elif name != "index" and (value is not None or name not in merged):
            merged[name] = value


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        have = into.get(name)
        if name == "tool_calls" and isinstance(value, list):
            if not isinstance(have, list):
                have = into[name] = []
            for call in value:
                if isinstance(call, dict):
                    _add_tool_call(have, call)
        elif have is None:
            into[name] = value
        elif value is None or name in _WHOLE:
            continue
        elif isinstance(have, str) and isinstance(value, str):
            # Some servers send the function's name again with every piece of its arguments.
            if name != "name" or value != have:
                into[name] = have + value
        elif isinstance(have, list) and isinstance(value, list):
            have.extend(value)
        elif isinstance(have, dict) and isinstance(value, dict):
            _merge(have, value)
        elif isinstance(have, list) or isinstance(value, list):
            into[name] = [*_as_parts(have), *_as_parts(value)]
        else:
            into[name] = value


def _as_parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _add_tool_call(calls: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    """Continue the call with the same ``index``; without one, the same id, or the last when there is no id
    either."""
    index, name = delta.get("index"), delta.get("id")
    if isinstance(index, int):
        known = next((call for call in calls if call.get("index") == index), None)
    elif name:
        known = next((call for call in calls if call.get("id") == name), None)
    else:
        known = calls[-1] if calls else None
    if known is None:
        known = {}
        calls.append(known)
    _merge(known, delta)


def _finished(choice: dict[str, Any], is_chat: bool) -> dict[str, Any]:
    choice.setdefault("finish_reason", None)
    if not is_chat:
        choice.setdefault("text", "")
        return choice
    message: dict[str, Any] = choice.setdefault("message", {})
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        # The index orders the pieces of a stream; an answer in one piece has none.
        ordered = sorted(calls, key=_place)
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"} for call in ordered
        ]
    return choice


def _place(call: dict[str, Any]) -> int:
    index = call.get("index")
    return index if isinstance(index, int) else 0
