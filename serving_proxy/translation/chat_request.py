"""A request of OpenAI's chat completions, as far as it can be put into another API's words.

Source: https://platform.openai.com/docs/api-reference/chat/create. Fields that are not listed are refused by name.
Three that OpenAI does not have are taken for models that do: ``thinking`` (as Anthropic words it), ``top_k``, and
``cache_control`` on content parts and tools. What each field means for a provider is decided where its request is
written; ``refuse_unsupported`` holds what none of them has.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NoReturn, TypeAlias

import msgspec

from serving_proxy.translation.strict_json import is_given, refuse

_NOTHING: Final = msgspec.Raw()


class _Part(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, gc=False, kw_only=True):
    cache_control: dict[str, Any] | None = None
    prompt_cache_breakpoint: dict[str, Any] | None = None


class TextPart(_Part, tag="text"):
    text: str


class RefusalPart(_Part, tag="refusal"):
    refusal: str


class ImageURL(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(_Part, tag="image_url"):
    image_url: ImageURL


class AudioPart(_Part, tag="input_audio"):
    input_audio: msgspec.Raw = _NOTHING


class File(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(_Part, tag="file"):
    file: File


Part: TypeAlias = TextPart | RefusalPart | ImagePart | AudioPart | FilePart
Content: TypeAlias = str | list[TextPart | RefusalPart | ImagePart | AudioPart | FilePart] | None


class FunctionCall(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    arguments: str = ""
    parsed_arguments: Any = None


class ToolCall(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"
    index: int | None = None


class _Message(msgspec.Struct, tag_field="role", forbid_unknown_fields=True, kw_only=True):
    content: Content = None
    name: str | None = None


class SystemMessage(_Message, tag="system"):
    pass


class DeveloperMessage(_Message, tag="developer"):
    pass


class UserMessage(_Message, tag="user"):
    pass


class AssistantMessage(_Message, tag="assistant"):
    """Also what clients keep of an answer and send again: its annotations, what OpenAI's library has ``parsed`` of it,
    and our ``reasoning_content``.
    """

    tool_calls: list[ToolCall] | None = None
    refusal: str | None = None
    thinking_blocks: list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    annotations: Any = None
    parsed: Any = None
    function_call: msgspec.Raw = _NOTHING
    audio: msgspec.Raw = _NOTHING


class ToolMessage(_Message, tag="tool"):
    tool_call_id: str


Message: TypeAlias = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = _NOTHING
    strict: bool | None = None


class Tool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    function: Function
    type: Literal["function"] = "function"
    cache_control: dict[str, Any] | None = None


class Named(msgspec.Struct, gc=False):
    name: str


class _NamedTool(msgspec.Struct, gc=False):
    function: Named
    type: Literal["function"] = "function"


class AllowedTools(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    mode: Literal["auto", "required"]
    tools: list[_NamedTool]


class NamedChoice(msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True, gc=False):
    function: Named


class AllowedChoice(
    msgspec.Struct, tag_field="type", tag="allowed_tools", forbid_unknown_fields=True, gc=False
):
    allowed_tools: AllowedTools


class JSONSchema(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    schema: msgspec.Raw = _NOTHING
    description: str | None = None
    strict: bool | None = None


class TextFormat(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True, gc=False):
    pass


class ObjectFormat(msgspec.Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True, gc=False):
    pass


class SchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True, gc=False):
    json_schema: JSONSchema


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Thinking(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body. ``metadata``, prompt-cache hints, ``prediction``, ``usage_context`` and ``client_request_id`` are
    taken and dropped: they change no answer.
    """

    messages: list[SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | AllowedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | ObjectFormat | SchemaFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    thinking: Thinking | None = None
    user: str | None = None
    safety_identifier: str | None = None
    n: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    service_tier: str | None = None
    store: bool | None = None
    modalities: list[str] | None = None
    verbosity: str | None = None
    audio: msgspec.Raw = _NOTHING
    functions: msgspec.Raw = _NOTHING
    function_call: msgspec.Raw = _NOTHING
    moderation: msgspec.Raw = _NOTHING
    web_search_options: msgspec.Raw = _NOTHING
    metadata: Any = None
    prediction: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    usage_context: Any = None
    client_request_id: Any = None


decode_chat: Final = msgspec.json.Decoder(ChatRequest)


def refuse_unsupported(request: ChatRequest, provider: str) -> None:
    """Refuse what no provider but OpenAI has, unless it asks for what is the case anyway."""
    if request.logprobs or request.top_logprobs:
        refuse(
            "logprobs" if request.logprobs else "top_logprobs",
            f"{provider}'s API has no token probabilities as OpenAI words them.",
        )
    if request.logit_bias:
        refuse("logit_bias", f"{provider}'s API has no logit bias.")
    if request.service_tier not in (None, "auto", "default"):
        refuse("service_tier", f"{provider}'s API has no service tier {request.service_tier!r}.")
    if request.store:
        refuse("store", f"{provider} does not keep answers for OpenAI's dashboard.")
    if request.modalities not in (None, [], ["text"]) or is_given(request.audio):
        field = "audio" if is_given(request.audio) else "modalities"
        refuse(field, f"{provider}'s API answers in text only.", "Leave it out, or use ['text'].")
    if request.verbosity not in (None, "medium"):
        refuse("verbosity", f"{provider}'s API has no verbosity.", "Say it in the system prompt.")
    for field in ("functions", "function_call"):
        if is_given(getattr(request, field)):
            refuse(field, f"{field!r} is deprecated and is not translated.", "Use 'tools' and 'tool_choice'.")
    for field in ("moderation", "web_search_options"):
        if is_given(getattr(request, field)):
            refuse(field, f"{provider}'s API has no {field!r} as OpenAI words it.")


def max_tokens(request: ChatRequest) -> int | None:
    """The bound on the answer's tokens, under whichever name it was given."""
    if request.max_completion_tokens is not None:
        return request.max_completion_tokens
    return request.max_tokens


def stop_sequences(request: ChatRequest) -> list[str]:
    stop = request.stop
    return [stop] if isinstance(stop, str) else stop or []


def offered_tools(request: ChatRequest) -> list[tuple[int, Tool]]:
    """The tools that the model may use, with their places in the request: all, or those ``allowed_tools`` names."""
    tools = list(enumerate(request.tools or ()))
    choice = request.tool_choice
    if isinstance(choice, AllowedChoice):
        named = _known(
            request, [tool.function.name for tool in choice.allowed_tools.tools], "allowed_tools.tools"
        )
        return [entry for entry in tools if entry[1].function.name in named]
    if isinstance(choice, NamedChoice):
        _known(request, [choice.function.name], "function.name")
    elif choice == "required" and not tools:
        refuse("tool_choice", "'required' needs 'tools'.", "Define at least one tool.")
    return tools


def _known(request: ChatRequest, names: list[str], where: str) -> set[str]:
    defined = {tool.function.name for tool in request.tools or ()}
    for name in names:
        if name not in defined:
            refuse(f"tool_choice.{where}", f"There is no tool named {name!r}.", "Name one of 'tools'.")
    return set(names)


def text_of(content: Content, where: str, provider: str) -> str:
    """The content as one text, its parts one below the other; anything but text is refused."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for number, part in enumerate(content):
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, RefusalPart):
            texts.append(part.refusal)
        else:
            refuse_part(f"{where}.content[{number}]", part, provider)
    return "\n".join(texts)


def refuse_part(where: str, part: Part, provider: str) -> NoReturn:
    """Say that a content part is of a type that the provider does not take here."""
    kind = part.__struct_config__.tag
    refuse(f"{where}.type", f"{provider}'s API takes no {kind!r} here.", "Send it as text.")


def refuse_name(message: Message, where: str, provider: str) -> None:
    """A participant's name would be lost. On a tool's result it says what ``tool_call_id`` says better."""
    if message.name is not None and not isinstance(message, ToolMessage):
        refuse(f"{where}.name", f"{provider}'s API has no names of participants.", "Put it into the content.")
