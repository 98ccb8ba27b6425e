"""Anthropic's Messages request in the words of OpenAI's chat completions.

Sources: https://platform.claude.com/docs/en/api/messages/create and
https://platform.openai.com/docs/api-reference/chat/create. Left out because no other provider can use it: what
Claude thought in earlier turns (it is signed for Anthropic) and cache hints. A tool's failure (``is_error``) is told in
the text, which then begins with ``Error:``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from serving_proxy.translation.messages_request import (
    Base64Source,
    Block,
    DocumentBlock,
    ImageBlock,
    Message,
    MessagesRequest,
    RedactedThinkingBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
    decode_messages,
)
from serving_proxy.translation.strict_json import is_object, read_request, refuse, write_request

_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_THOUGHTS: Final = (ThinkingBlock, RedactedThinkingBlock)


class ChatBody(NamedTuple):
    """The body, and for each of its messages the place in the client's request that it comes from."""

    body: bytes
    origins: list[str]


def chat_body(body: bytes, *, model: str | None, extended: bool = False) -> ChatBody:
    """The body for ``/chat/completions``. Raises Invalid, which names the field that has no counterpart.

    ``extended`` keeps ``top_k`` and ``thinking``, for a second translation that knows them.
    """
    request = read_request(decode_messages, body)
    messages, origins = _conversation(request)
    written: dict[str, Any] = {
        "model": model or request.model,
        "messages": messages,
        "max_completion_tokens": request.max_tokens,
    }
    if request.stream:
        written["stream"] = True
        written["stream_options"] = {"include_usage": True}
    for name in ("temperature", "top_p"):
        value = getattr(request, name)
        if value is not None:
            written[name] = value
    if request.stop_sequences:
        written["stop"] = request.stop_sequences
    if request.metadata is not None and request.metadata.user_id:
        written["user"] = request.metadata.user_id
    if request.service_tier == "standard_only":
        written["service_tier"] = "default"
    if request.speed == "fast":
        refuse("speed", "Only Anthropic's API has this speed.")
    _add_tools(request, written)
    _add_thinking(request, written, extended=extended)
    return ChatBody(write_request(written), origins)


def _conversation(request: MessagesRequest) -> tuple[list[dict[str, Any]], list[str]]:
    written: list[dict[str, Any]] = []
    origins: list[str] = []
    if request.system:
        system = request.system
        text = system if isinstance(system, str) else "\n".join(block.text for block in system)
        written.append({"role": "system", "content": text})
        origins.append("system")
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        made = _messages(message, where)
        written += made
        origins += [where] * len(made)
    if request.messages and request.messages[-1].role == "assistant":
        refuse(
            f"messages[{len(request.messages) - 1}]",
            "Only Anthropic's API goes on with an answer that the request begins.",
            "End with a message of the user.",
        )
    return written, origins


def _messages(message: Message, where: str) -> list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        return [{"role": message.role, "content": content}]
    if message.role == "assistant":
        return _said(content, where)
    if message.role == "system":
        texts = [_text(block, f"{where}.content[{number}]") for number, block in enumerate(content)]
        return [{"role": "system", "content": "\n".join(texts)}]
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for number, block in enumerate(content):
        place = f"{where}.content[{number}]"
        if isinstance(block, ToolResultBlock):
            results.append(_result(block, place))
        else:
            parts.append(_part(block, place))
    if not parts:
        return results
    if all(part["type"] == "text" for part in parts) and len(parts) == 1:
        return [*results, {"role": "user", "content": parts[0]["text"]}]
    return [*results, {"role": "user", "content": parts}]


def _said(content: list[Any], where: str) -> list[dict[str, Any]]:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, block in enumerate(content):
        place = f"{where}.content[{number}]"
        if isinstance(block, ToolUseBlock):
            if not is_object(block.input):
                refuse(f"{place}.input", "A tool's input must be an object.", "Send an object.")
            arguments = bytes(block.input).decode("utf-8", "replace")
            calls.append(
                {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}
            )
        elif not isinstance(block, _THOUGHTS):
            texts.append(_text(block, place))
    said: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if calls:
        said["tool_calls"] = calls
    return [said]


def _text(block: Block, where: str) -> str:
    if not isinstance(block, TextBlock):
        refuse(f"{where}.type", "There can be only text here for this model's provider.", "Send it as text.")
    return block.text


def _result(block: ToolResultBlock, where: str) -> dict[str, Any]:
    content = block.content
    if content is None or isinstance(content, str):
        text = content or ""
    else:
        text = "\n".join(_text(part, f"{where}.content[{number}]") for number, part in enumerate(content))
    if block.is_error:
        text = f"Error: {text}"
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": text}


def _part(block: Block, where: str) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    if isinstance(block, ImageBlock):
        source = block.source
        if isinstance(source, Base64Source):
            return {
                "type": "image_url",
                "image_url": {"url": f"data:{source.media_type};base64,{source.data}"},
            }
        return {"type": "image_url", "image_url": {"url": source.url}}
    if not isinstance(block, DocumentBlock):
        refuse(f"{where}.type", "A user's message cannot have this block.", "Put it where it belongs.")
    return _document(block, where)


def _document(block: DocumentBlock, where: str) -> dict[str, Any]:
    if block.citations is not None and block.citations.enabled:
        refuse(f"{where}.citations", "OpenAI's API cites no documents.")
    if block.context:
        refuse(f"{where}.context", "OpenAI's API has no context of a document.", "Put it into the text.")
    source = block.source
    if isinstance(source, TextSource):
        text = f"{block.title}\n{source.data}" if block.title else source.data
        return {"type": "text", "text": text}
    if not isinstance(source, Base64Source):
        refuse(f"{where}.source.type", "OpenAI's API fetches no documents.", "Send the document's data.")
    data = f"data:{source.media_type};base64,{source.data}"
    return {"type": "file", "file": {"filename": block.title or "document.pdf", "file_data": data}}


def _add_tools(request: MessagesRequest, written: dict[str, Any]) -> None:
    if not request.tools:
        return
    written["tools"] = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(request.tools)]
    choice = request.tool_choice
    if choice is None:
        return
    if choice.type == "tool":
        if choice.name is None:
            refuse("tool_choice.name", "It is missing.", "Name one of 'tools'.")
        written["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    else:
        written["tool_choice"] = _CHOICES[choice.type]
    if choice.disable_parallel_tool_use:
        written["parallel_tool_calls"] = False


def _tool(tool: Tool, where: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        refuse(
            f"{where}.type",
            f"Only Anthropic's API runs the tool {tool.type!r}.",
            "Define a tool of your own.",
        )
    if not is_object(tool.input_schema):
        refuse(f"{where}.input_schema", "It must be a JSON schema.", "Send an object.")
    if tool.defer_loading:
        refuse(f"{where}.defer_loading", "Only Anthropic's API searches for tools.")
    if tool.allowed_callers not in (None, [], ["direct"]):
        refuse(f"{where}.allowed_callers", "Only Anthropic's API calls tools from code.", "Use ['direct'].")
    if tool.input_examples:
        refuse(f"{where}.input_examples", "OpenAI's API has no examples.", "Put them into the description.")
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _add_thinking(request: MessagesRequest, written: dict[str, Any], *, extended: bool) -> None:
    config = request.output_config
    if config is not None:
        if config.effort is not None:
            written["reasoning_effort"] = config.effort
        if config.format is not None:
            if not is_object(config.format.schema):
                refuse("output_config.format.schema", "It must be a JSON schema.", "Send an object.")
            schema = {"name": "answer", "schema": config.format.schema, "strict": True}
            written["response_format"] = {"type": "json_schema", "json_schema": schema}
    thinking = request.thinking
    if extended:
        if request.top_k is not None:
            written["top_k"] = request.top_k
        if thinking is not None:
            written["thinking"] = thinking
        return
    if request.top_k is not None:
        refuse("top_k", "OpenAI's API has no top_k.", "Leave it out, or set it as the entity's override.")
    if thinking is not None and thinking.type == "enabled":
        refuse(
            "thinking.budget_tokens",
            "OpenAI's API has no budget for thinking.",
            "Use {'type': 'adaptive'} and 'output_config.effort'.",
        )
