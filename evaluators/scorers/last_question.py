"""What a person asked last, without the instructions that the application put before it.

The inference table's ``prompt_text`` is the whole prompt: a system prompt in one language and a question in another
are one text there. The body of the request tells them apart.
"""

from __future__ import annotations

from typing import Any

from collector.anthropic_bodies import block_texts
from collector.json_text import parse
from collector.responses_bodies import item_texts
from evaluators.evaluator import Text, target_text


def last_question(text: Text) -> str | None:
    """The text of the last message by a user in the column ``request``, for the chat dialects and OpenAI's Responses;
    the whole prompt for other shapes and where there is no body. ``None`` when there is neither."""
    body = text.columns.get("request")
    found = _last_question(parse(body)) if isinstance(body, str) else None
    return found if found and found.strip() else target_text(text, "request")


def _last_question(request: Any) -> str | None:
    if not isinstance(request, dict):
        return None
    for name in ("messages", "input"):
        messages = request.get(name)
        if not isinstance(messages, list):
            continue
        for message in reversed(messages):
            if isinstance(message, dict) and message.get("role") == "user":
                content = message.get("content")
                texts = [content] if isinstance(content, str) else _texts(content)
                if said := "\n".join(text for text in texts if text.strip()):
                    return said
    return None


def _texts(content: Any) -> list[str]:
    # A tool's result is sent by "user", too, in Anthropic's dialect, and is nobody's question.
    blocks = content if isinstance(content, list) else []
    asked = [block for block in blocks if isinstance(block, dict) and block.get("type") != "tool_result"]
    return [*block_texts(asked)] or [*item_texts(asked)]
