"""OpenAI's chat request in the words of AI21's chat completions.

Source: https://docs.ai21.com/reference/jamba-1-6-api-ref. The API looks like OpenAI's, with fewer fields: contents are
texts, tools can be offered but not demanded, and JSON mode has no schema.
"""

from __future__ import annotations

from typing import Any, Final

from serving_proxy.translation.chat_request import (
    AllowedChoice,
    AssistantMessage,
    ChatRequest,
    DeveloperMessage,
    NamedChoice,
    ObjectFormat,
    SchemaFormat,
    SystemMessage,
    ToolMessage,
    decode_chat,
    max_tokens,
    offered_tools,
    refuse_name,
    refuse_unsupported,
    stop_sequences,
    text_of,
)
from serving_proxy.translation.strict_json import is_given, is_object, read_request, refuse, write_request

_PROVIDER: Final = "AI21"


def ai21_request(body: bytes, *, model: str | None) -> bytes:
    """The body for ``/studio/v1/chat/completions``. Raises Invalid, which names the field that has no
    counterpart.
    """
    request = read_request(decode_chat, body)
    refuse_unsupported(request, _PROVIDER)
    _refuse_missing(request)
    written: dict[str, Any] = {
        "model": model or request.model,
        "messages": [_message(message, number) for number, message in enumerate(request.messages)],
    }
    bound = max_tokens(request)
    if bound is not None:
        written["max_tokens"] = bound
    for name in ("temperature", "top_p", "n", "stream"):
        value = getattr(request, name)
        if value is not None:
            written[name] = value
    if stops := stop_sequences(request):
        written["stop"] = stops
    if tools := _tools(request):
        written["tools"] = tools
    if isinstance(request.response_format, ObjectFormat):
        written["response_format"] = {"type": "json_object"}
    return write_request(written)


def _refuse_missing(request: ChatRequest) -> None:
    if request.seed is not None:
        refuse("seed", "AI21's API has no seed.")
    if request.top_k is not None:
        refuse("top_k", "AI21's API has no top_k.")
    for field in ("frequency_penalty", "presence_penalty"):
        if getattr(request, field):
            refuse(field, f"AI21's API has no {field}.")
    if request.reasoning_effort not in (None, "none"):
        refuse("reasoning_effort", "AI21's API has no reasoning effort.")
    if request.thinking is not None and request.thinking.type == "enabled":
        refuse("thinking", "AI21's API has no thinking budget.")
    if isinstance(request.response_format, SchemaFormat):
        refuse(
            "response_format.type", "AI21's API has JSON mode without a schema only.", "Use 'json_object'."
        )


def _message(message: Any, number: int) -> dict[str, Any]:
    where = f"messages[{number}]"
    if message.name is not None:
        refuse_name(message, where, _PROVIDER)
    text = text_of(message.content, where, _PROVIDER)
    if isinstance(message, SystemMessage | DeveloperMessage):
        return {"role": "system", "content": text}
    if isinstance(message, ToolMessage):
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": text}
    if not isinstance(message, AssistantMessage):
        return {"role": "user", "content": text}
    for field in ("audio", "function_call"):
        if is_given(getattr(message, field)):
            refuse(f"{where}.{field}", f"AI21's API has no {field!r}.", "Use 'content' and 'tool_calls'.")
    said: dict[str, Any] = {"role": "assistant", "content": text or message.refusal or ""}
    if message.tool_calls:
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments or "{}"},
            }
            for call in message.tool_calls
        ]
    return said


def _tools(request: ChatRequest) -> list[dict[str, Any]]:
    offered = offered_tools(request)
    choice = request.tool_choice
    if isinstance(choice, AllowedChoice):
        choice = choice.allowed_tools.mode
    if isinstance(choice, NamedChoice) or choice == "required":
        refuse("tool_choice", "AI21's API cannot be made to call a tool.", "Use 'auto'.")
    if choice == "none" or not offered:
        return []
    if request.parallel_tool_calls is False:
        refuse("parallel_tool_calls", "AI21's API cannot be kept to one tool call.")
    tools = []
    for number, tool in offered:
        function = tool.function
        if function.strict:
            where = f"tools[{number}].function.strict"
            refuse(where, "AI21's API does not hold tool calls to their schemas.")
        definition: dict[str, Any] = {"name": function.name}
        if function.description is not None:
            definition["description"] = function.description
        if is_given(function.parameters):
            if not is_object(function.parameters):
                refuse(f"tools[{number}].function.parameters", "It must be a JSON schema.", "Send an object.")
            definition["parameters"] = function.parameters
        tools.append({"type": "function", "function": definition})
    return tools
