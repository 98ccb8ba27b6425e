"""OpenAI's chat request in the words of Anthropic's Messages API.

Source: https://platform.claude.com/docs/en/api/messages/create and, for the answer's format,
https://platform.claude.com/docs/en/build-with-claude/structured-outputs. ``max_tokens`` is required there:
:data:`DEFAULT_MAX_TOKENS` stands in when the client does not bound its answer.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from serving_proxy.translation.chat_request import (
    AllowedChoice,
    AssistantMessage,
    ChatRequest,
    Content,
    DeveloperMessage,
    FilePart,
    ImagePart,
    NamedChoice,
    ObjectFormat,
    Part,
    RefusalPart,
    SchemaFormat,
    SystemMessage,
    TextPart,
    ToolMessage,
    decode_chat,
    max_tokens,
    offered_tools,
    refuse_name,
    refuse_part,
    refuse_unsupported,
    stop_sequences,
)
from serving_proxy.translation.strict_json import (
    NO_JSON,
    is_given,
    is_object,
    read_request,
    refuse,
    write_request,
)

DEFAULT_MAX_TOKENS: Final = 16_384

_PROVIDER: Final = "Anthropic"
_EFFORTS: Final = {"minimal": "low"}
_NO_PARAMETERS: Final = {"type": "object", "properties": {}}
_decode_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def anthropic_request(body: bytes, *, model: str | None) -> bytes:
    """The body for ``/v1/messages``. Raises Invalid, which names the field that has no counterpart."""
    request = read_request(decode_chat, body)
    refuse_unsupported(request, _PROVIDER)
    _refuse_sampling(request)
    system, messages = _conversation(request)
    written: dict[str, Any] = {
        "model": model or request.model,
        "max_tokens": _max_tokens(request),
        "messages": messages,
    }
    if system:
        written["system"] = system
    if request.stream:
        written["stream"] = True
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(request, name)
        if value is not None:
            written[name] = value
    if stops := stop_sequences(request):
        written["stop_sequences"] = stops
    if user := request.safety_identifier or request.user:
        written["metadata"] = {"user_id": user}
    if request.service_tier == "default":
        written["service_tier"] = "standard_only"
    _add_tools(request, written)
    _add_thinking(request, written)
    _add_format(request, written)
    return write_request(written)


def _refuse_sampling(request: ChatRequest) -> None:
    if request.n not in (None, 1):
        refuse("n", "Anthropic's API gives one answer a call.", "Call it several times.")
    if request.seed is not None:
        refuse("seed", "Anthropic's API has no seed.")
    for field in ("frequency_penalty", "presence_penalty"):
        if getattr(request, field):
            refuse(field, f"Anthropic's API has no {field}.")
    temperature = request.temperature
    if temperature is not None and not 0 <= temperature <= 1:
        refuse("temperature", "Anthropic's API takes temperatures from 0 to 1.", "Choose one in that range.")


def _max_tokens(request: ChatRequest) -> int:
    bound = max_tokens(request)
    if bound is not None:
        return bound
    budget = request.thinking.budget_tokens if request.thinking is not None else None
    return DEFAULT_MAX_TOKENS + (budget or 0)


def _conversation(request: ChatRequest) -> tuple[str | list[dict[str, Any]], list[dict[str, Any]]]:
    """The system prompt, which is what stands first, and the messages."""
    system: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        if message.name is not None:
            refuse_name(message, where, _PROVIDER)
        if isinstance(message, SystemMessage | DeveloperMessage):
            blocks = _blocks(message.content, where, text_only=True)
            if messages:
                messages.append({"role": "system", "content": blocks})
            else:
                system += blocks
        elif isinstance(message, ToolMessage):
            content = message.content
            result = {
                "type": "tool_result",
                "tool_use_id": message.tool_call_id,
                "content": content if isinstance(content, str) else _blocks(content, where, text_only=False),
            }
            last = messages[-1] if messages else {}
            if last.get("role") == "user" and last.get("_results"):
                last["content"].append(result)
            else:
                messages.append({"role": "user", "content": [result], "_results": True})
        elif isinstance(message, AssistantMessage):
            messages.append({"role": "assistant", "content": _said(message, where)})
        elif isinstance(message.content, str):
            messages.append({"role": "user", "content": message.content})
        else:
            messages.append({"role": "user", "content": _blocks(message.content, where, text_only=False)})
    for message_written in messages:
        message_written.pop("_results", None)
    if len(system) == 1 and set(system[0]) == {"type", "text"}:
        return str(system[0]["text"]), messages
    return system, messages


def _said(message: AssistantMessage, where: str) -> list[dict[str, Any]]:
    if is_given(message.audio):
        refuse(f"{where}.audio", "Anthropic's API has no audio.", "Send its transcript as content.")
    if is_given(message.function_call):
        refuse(f"{where}.function_call", "'function_call' is deprecated.", "Use 'tool_calls'.")
    blocks: list[dict[str, Any]] = []
    for block in message.thinking_blocks or ():
        blocks.append({name: value for name, value in block.items() if name != "index"})
    blocks += _blocks(message.content, where, text_only=True)
    if message.refusal:
        blocks.append({"type": "text", "text": message.refusal})
    for number, call in enumerate(message.tool_calls or ()):
        arguments = _arguments(call.function.arguments, f"{where}.tool_calls[{number}].function.arguments")
        blocks.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": arguments})
    if not blocks:
        refuse(f"{where}.content", "Anthropic's API takes no empty message.", "Leave the message out.")
    return blocks


def _arguments(arguments: str, where: str) -> msgspec.Raw | dict[str, Any]:
    if not arguments.strip():
        return {}
    raw = arguments.encode()
    try:
        _decode_object(raw)
    except NO_JSON:
        refuse(where, "Anthropic's API takes a tool's arguments as a JSON object only.", "Send an object.")
    return msgspec.Raw(raw)


def _blocks(content: Content, where: str, *, text_only: bool) -> list[dict[str, Any]]:
    """Anthropic's content blocks; empty texts, which it refuses, are left out."""
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks = []
    for number, part in enumerate(content):
        block = _block(part, f"{where}.content[{number}]", text_only=text_only)
        if block is not None:
            marker = part.cache_control or ({"type": "ephemeral"} if part.prompt_cache_breakpoint else None)
            if marker is not None:
                block["cache_control"] = marker
            blocks.append(block)
    return blocks


def _block(part: Part, where: str, *, text_only: bool) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text} if part.text else None
    if isinstance(part, RefusalPart):
        return {"type": "text", "text": part.refusal} if part.refusal else None
    if text_only or not isinstance(part, ImagePart | FilePart):
        refuse_part(where, part, _PROVIDER)
    if isinstance(part, ImagePart):
        return {"type": "image", "source": _source(part.image_url.url, f"{where}.image_url.url", "image/")}
    file = part.file
    if file.file_data is None:
        refuse(f"{where}.file.file_id", "Files kept at OpenAI cannot be read.", "Send 'file_data'.")
    source = _source(file.file_data, f"{where}.file.file_data", "application/pdf")
    document: dict[str, Any] = {"type": "document", "source": source}
    if file.filename:
        document["title"] = file.filename
    return document


def _source(url: str, where: str, kind: str) -> dict[str, Any]:
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    head, comma, data = url.partition(",")
    media_type, _, encoding = head.removeprefix("data:").partition(";")
    if not comma or not head.startswith("data:") or encoding != "base64" or not media_type.startswith(kind):
        refuse(
            where,
            "Anthropic's API takes an https address, or data of a type it knows.",
            f"Send 'https://…' or 'data:{kind}…;base64,…'.",
        )
    return {"type": "base64", "media_type": media_type, "data": data}


def _add_tools(request: ChatRequest, written: dict[str, Any]) -> None:
    tools = []
    for number, tool in offered_tools(request):
        function = tool.function
        schema: Any = function.parameters if is_given(function.parameters) else _NO_PARAMETERS
        if isinstance(schema, msgspec.Raw) and not is_object(schema):
            refuse(f"tools[{number}].function.parameters", "It must be a JSON schema.", "Send an object.")
        definition: dict[str, Any] = {"name": function.name, "input_schema": schema}
        if function.description is not None:
            definition["description"] = function.description
        if function.strict:
            definition["strict"] = True
        if tool.cache_control is not None:
            definition["cache_control"] = tool.cache_control
        tools.append(definition)
    if not tools:
        return
    written["tools"] = tools
    choice = _choice(request)
    if request.parallel_tool_calls is False and choice.get("type") != "none":
        written["tool_choice"] = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    elif choice:
        written["tool_choice"] = choice


def _choice(request: ChatRequest) -> dict[str, Any]:
    choice = request.tool_choice
    if isinstance(choice, NamedChoice):
        return {"type": "tool", "name": choice.function.name}
    if isinstance(choice, AllowedChoice):
        choice = choice.allowed_tools.mode
    if choice is None:
        return {}
    return {"type": {"none": "none", "auto": "auto", "required": "any"}[choice]}


def _add_thinking(request: ChatRequest, written: dict[str, Any]) -> None:
    if request.thinking is not None:
        written["thinking"] = {
            name: value
            for name in ("type", "budget_tokens", "display")
            if (value := getattr(request.thinking, name)) is not None
        }
    effort = request.reasoning_effort
    if effort == "none":
        written.setdefault("thinking", {"type": "disabled"})
    elif effort is not None:
        written["output_config"] = {"effort": _EFFORTS.get(effort, effort)}


def _add_format(request: ChatRequest, written: dict[str, Any]) -> None:
    wanted = request.response_format
    if isinstance(wanted, ObjectFormat):
        refuse(
            "response_format.type",
            "Anthropic's API has no JSON mode without a schema.",
            "Use 'json_schema', or ask for JSON in the prompt.",
        )
    if not isinstance(wanted, SchemaFormat):
        return
    schema = wanted.json_schema.schema
    if not is_object(schema):
        refuse("response_format.json_schema.schema", "It must be a JSON schema.", "Send an object.")
    fields: dict[str, Any] = _decode_object(bytes(schema))
    if wanted.json_schema.description and "description" not in fields:
        fields["description"] = wanted.json_schema.description
    written.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": fields}
