"""OpenAI's chat request in the words of Cohere's v2 chat.

Source: https://docs.cohere.com/reference/chat. ``top_p`` of 1 (no bound) becomes 0.99, the largest ``p`` there is; a
named tool becomes the only one offered, with ``REQUIRED``, which is the same.
"""

from __future__ import annotations

from typing import Any, Final

from serving_proxy.translation.chat_request import (
    AllowedChoice,
    AssistantMessage,
    ChatRequest,
    Content,
    DeveloperMessage,
    ImagePart,
    NamedChoice,
    RefusalPart,
    SchemaFormat,
    SystemMessage,
    TextFormat,
    TextPart,
    ToolMessage,
    decode_chat,
    max_tokens,
    offered_tools,
    refuse_name,
    refuse_part,
    refuse_unsupported,
    stop_sequences,
    text_of,
)
from serving_proxy.translation.strict_json import is_given, is_object, read_request, refuse, write_request

_PROVIDER: Final = "Cohere"
_LEAST_P: Final = 0.01
_MOST_P: Final = 0.99
_NO_PARAMETERS: Final = {"type": "object", "properties": {}}


def cohere_request(body: bytes, *, model: str | None) -> bytes:
    """The body for ``/v2/chat``. Raises Invalid, which names the field that has no counterpart."""
    request = read_request(decode_chat, body)
    refuse_unsupported(request, _PROVIDER)
    written: dict[str, Any] = {
        "model": model or request.model,
        "messages": [_message(message, number) for number, message in enumerate(request.messages)],
        "stream": request.stream is True,
    }
    bound = max_tokens(request)
    if bound is not None:
        written["max_tokens"] = bound
    if stops := stop_sequences(request):
        written["stop_sequences"] = stops
    _add_sampling(request, written)
    _add_tools(request, written)
    _add_thinking(request, written)
    _add_format(request, written)
    return write_request(written)


def _message(
    message: SystemMessage | DeveloperMessage | ToolMessage | AssistantMessage | Any, number: int
) -> dict[str, Any]:
    where = f"messages[{number}]"
    if message.name is not None:
        refuse_name(message, where, _PROVIDER)
    if isinstance(message, SystemMessage | DeveloperMessage):
        return {"role": "system", "content": text_of(message.content, where, _PROVIDER)}
    if isinstance(message, ToolMessage):
        content = text_of(message.content, where, _PROVIDER)
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": content}
    if isinstance(message, AssistantMessage):
        return _said(message, where)
    return {"role": "user", "content": _content(message.content, where)}


def _said(message: AssistantMessage, where: str) -> dict[str, Any]:
    for field in ("audio", "function_call"):
        if is_given(getattr(message, field)):
            refuse(f"{where}.{field}", f"Cohere's API has no {field!r}.", "Use 'content' and 'tool_calls'.")
    text = text_of(message.content, where, _PROVIDER) or message.refusal or ""
    if not message.tool_calls:
        return {"role": "assistant", "content": text}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments or "{}"},
        }
        for call in message.tool_calls
    ]
    said: dict[str, Any] = {"role": "assistant", "tool_calls": calls}
    if text:
        said["tool_plan"] = text  # what is said before tools are called has a name of its own there
    return said


def _content(content: Content, where: str) -> str | list[dict[str, Any]]:
    if content is None or isinstance(content, str):
        return content or ""
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(content):
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
        elif isinstance(part, RefusalPart):
            parts.append({"type": "text", "text": part.refusal})
        elif isinstance(part, ImagePart):
            image = part.image_url
            if image.detail == "original":
                where_detail = f"{where}.content[{number}].image_url.detail"
                refuse(where_detail, "Cohere's API has no 'original'.", "Use 'high'.")
            source = (
                {"url": image.url} if image.detail is None else {"url": image.url, "detail": image.detail}
            )
            parts.append({"type": "image_url", "image_url": source})
        else:
            refuse_part(f"{where}.content[{number}]", part, _PROVIDER)
    return parts


def _add_sampling(request: ChatRequest, written: dict[str, Any]) -> None:
    if request.n not in (None, 1):
        refuse("n", "Cohere's API gives one answer a call.", "Call it several times.")
    if request.temperature is not None:
        written["temperature"] = request.temperature
    if request.top_p is not None:
        written["p"] = min(max(request.top_p, _LEAST_P), _MOST_P)
    if request.top_k is not None:
        written["k"] = request.top_k
    if request.seed is not None:
        written["seed"] = request.seed
    for field in ("frequency_penalty", "presence_penalty"):
        value = getattr(request, field)
        if value is None:
            continue
        if not 0 <= value <= 1:
            refuse(field, "Cohere's API takes penalties from 0 to 1.", "Choose one in that range.")
        written[field] = value


def _add_tools(request: ChatRequest, written: dict[str, Any]) -> None:
    offered = offered_tools(request)
    choice = request.tool_choice
    if isinstance(choice, NamedChoice):
        offered = [entry for entry in offered if entry[1].function.name == choice.function.name]
    if not offered:
        return
    if request.parallel_tool_calls is False:
        refuse("parallel_tool_calls", "Cohere's API cannot be kept to one tool call.")
    strict = [bool(tool.function.strict) for _, tool in offered]
    if any(strict):
        if not all(strict):
            number = offered[strict.index(False)][0]
            refuse(
                f"tools[{number}].function.strict",
                "Cohere's API holds either all tools to their schemas or none.",
                "Set 'strict' on all of them.",
            )
        written["strict_tools"] = True
    tools = []
    for number, tool in offered:
        function = tool.function
        schema: Any = function.parameters if is_given(function.parameters) else _NO_PARAMETERS
        if schema is not _NO_PARAMETERS and not is_object(function.parameters):
            refuse(f"tools[{number}].function.parameters", "It must be a JSON schema.", "Send an object.")
        definition: dict[str, Any] = {"name": function.name, "parameters": schema}
        if function.description is not None:
            definition["description"] = function.description
        tools.append({"type": "function", "function": definition})
    written["tools"] = tools
    if isinstance(choice, AllowedChoice):
        choice = choice.allowed_tools.mode
    if isinstance(choice, NamedChoice) or choice == "required":
        written["tool_choice"] = "REQUIRED"
    elif choice == "none":
        written["tool_choice"] = "NONE"


def _add_thinking(request: ChatRequest, written: dict[str, Any]) -> None:
    effort = request.reasoning_effort
    if effort not in (None, "none"):
        refuse("reasoning_effort", "Cohere's API has no degrees of reasoning but 'none'.")
    thinking = request.thinking
    if thinking is None:
        if effort == "none":
            written["thinking"] = {"type": "disabled"}
    elif thinking.type == "disabled":
        written["thinking"] = {"type": "disabled"}
    elif thinking.type == "enabled":
        budget = thinking.budget_tokens
        bound = {} if budget is None else {"token_budget": budget}
        written["thinking"] = {"type": "enabled", **bound}


def _add_format(request: ChatRequest, written: dict[str, Any]) -> None:
    wanted = request.response_format
    if wanted is None or isinstance(wanted, TextFormat):
        return
    answer_format: dict[str, Any] = {"type": "json_object"}
    if isinstance(wanted, SchemaFormat):
        if not is_object(wanted.json_schema.schema):
            refuse("response_format.json_schema.schema", "It must be a JSON schema.", "Send an object.")
        answer_format["json_schema"] = wanted.json_schema.schema
    written["response_format"] = answer_format
