"""What OpenAI's Responses API says in its own shapes: items of input and output, and a stream of events.

Sources: https://platform.openai.com/docs/api-reference/responses/create and
https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

_ENDS: Final = ("response.completed", "response.failed", "response.incomplete")
_STATES: Final = ("response.created", "response.in_progress", "response.queued")


def is_event(event: dict[str, Any]) -> bool:
    """Whether this is an event of a Responses stream."""
    kind = event.get("type")
    return isinstance(kind, str) and (
        kind.startswith("response.") or (kind == "error" and "message" in event)
    )


def is_response(response: dict[str, Any]) -> bool:
    return response.get("object") == "response" and isinstance(response.get("output"), list)


def item_texts(items: Any) -> Iterator[str]:
    """The texts in items of input or output: messages, function calls as ``name(arguments)``, and their outputs. Not
    what the model reasoned.
    """
    for item in items if isinstance(items, list) else [items]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            kind = item.get("type")
            if kind in ("function_call", "custom_tool_call"):
                given = item.get("arguments", item.get("input"))
                yield f"{item.get('name') or ''}({given if isinstance(given, str) else ''})"
            elif kind in ("function_call_output", "custom_tool_call_output"):
                yield from item_texts(item.get("output"))
            elif kind != "reasoning":
                for name in ("text", "refusal"):
                    if isinstance(text := item.get(name), str):
                        yield text
                if item.get("content") is not None:
                    yield from item_texts(item["content"])


def said(response: dict[str, Any]) -> str | None:
    """The text of an answer."""
    return "\n".join(text for text in item_texts(response["output"]) if text) or None


def finish_reason(response: dict[str, Any]) -> str | None:
    """Why the answer ended: its status, or what made it incomplete."""
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    status = response.get("status")
    return reason if isinstance(reason, str) else status if isinstance(status, str) else None


def response_of(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The response that a call without ``stream`` would have given. Its last event has all of it; a cut stream gives
    the items that came until then.
    """
    response: dict[str, Any] = {"object": "response", "output": []}
    items: dict[int, dict[str, Any]] = {}
    error = None
    for event in events:
        kind = event.get("type")
        whole = event.get("response")
        if kind in _ENDS and isinstance(whole, dict):
            return whole
        if kind in _STATES and isinstance(whole, dict):
            response = {**whole, "output": []}
        elif kind in ("response.output_item.added", "response.output_item.done"):
            if isinstance(event.get("item"), dict):
                items[_place(event)] = dict(event["item"])
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            name = "text" if kind == "response.output_text.delta" else "refusal"
            _add_text(items.setdefault(_place(event), {"type": "message", "role": "assistant"}), event, name)
        elif kind == "response.function_call_arguments.delta" and isinstance(event.get("delta"), str):
            item = items.setdefault(_place(event), {"type": "function_call"})
            have = item.get("arguments")
            item["arguments"] = (have if isinstance(have, str) else "") + event["delta"]
        elif kind == "error":
            error = {name: value for name, value in event.items() if name != "type"}
    response["output"] = [items[place] for place in sorted(items)]
    if error is not None:
        response["error"] = error
    return response


def _add_text(item: dict[str, Any], event: dict[str, Any], name: str) -> None:
    piece = event.get("delta")
    if not isinstance(piece, str):
        return
    content = item.get("content")
    if not isinstance(content, list):
        content = []
    place = event.get("content_index")
    place = place if isinstance(place, int) and 0 <= place < len(content) else None
    if place is None:
        kind = "output_text" if name == "text" else "refusal"
        if content and isinstance(content[-1], dict) and content[-1].get("type") == kind:
            place = len(content) - 1
        else:
            content = [*content, {"type": kind, name: ""}]
            place = len(content) - 1
    part = content[place]
    if isinstance(part, dict):
        have = part.get(name)
        content = [*content]
        content[place] = {**part, name: (have if isinstance(have, str) else "") + piece}
    item["content"] = content


def _place(event: dict[str, Any]) -> int:
    index = event.get("output_index")
    return index if isinstance(index, int) else 0
