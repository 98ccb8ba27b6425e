"""The model behind all providers: it does what the last message says, so that a test can ask for any kind of answer.

``use tools`` calls every offered tool with ``{"city": "Paris"}`` (one tool only where the call is limited to one, none
where tools are forbidden), ``call with nothing`` the first one without arguments, ``think`` thinks first, ``too long``
runs into ``max_tokens``, ``status N`` is refused with that status, ``break`` fails in the middle; a tool's result is
repeated. Anything else is echoed, as JSON where an answer in JSON was asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.providers.provider import Refusal

ARGUMENTS = {"city": "Paris"}


@dataclass(frozen=True, slots=True)
class Saying:
    """An answer before it is put into a provider's words. ``finish``: end, length or tools."""

    text: str = ""
    thoughts: str = ""
    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    finish: str = "end"
    breaks: bool = False
    input_tokens: int = 11
    output_tokens: int = 7


def say(
    last: str,
    *,
    tools: list[str],
    tool_result: str | None = None,
    demanded: bool = False,
    only_one: bool = False,
    as_json: bool = False,
) -> Saying:
    """The answer to a conversation that ends with ``last``, or with a tool's result."""
    if tool_result is not None:
        return Saying(f"The tool says: {tool_result}")
    if last.startswith("status "):
        raise Refusal(int(last.split()[1]), f"scripted failure {last.split()[1]}")
    if last == "break":
        return Saying("half an answer", breaks=True)
    if last == "too long":
        return Saying("and so on and so", finish="length")
    if tools and (demanded or last in ("use tools", "call with nothing")):
        arguments = {} if last == "call with nothing" else ARGUMENTS
        names = tools[:1] if only_one or last == "call with nothing" else tools
        calls = [(f"call_{number}", name, arguments) for number, name in enumerate(names)]
        return Saying("Let me look.", calls=calls, finish="tools")
    if last == "think":
        return Saying("thought about it", thoughts="hmm, let me see")
    return Saying(json.dumps({"echo": last}) if as_json else f"echo: {last} ✓ “ünïcode”")


def pieces(text: str, count: int = 4) -> list[str]:
    """The text in about ``count`` pieces, none of them empty."""
    edges = [round(number * len(text) / count) for number in range(count + 1)]
    return [text[start:end] for start, end in pairwise(edges) if end > start]


def events(*entries: dict[str, Any], named: bool) -> bytes:
    """Server-sent events, with their type as the event's name where the provider does so."""
    written = []
    for entry in entries:
        name = f"event: {entry['type']}\n" if named else ""
        written.append(f"{name}data: {json.dumps(entry, ensure_ascii=False)}\n\n")
    return "".join(written).encode()
