"""A request of Anthropic's Messages API, as far as it can be put into another API's words.

Source: https://platform.claude.com/docs/en/api/messages/create. Fields and blocks that are not listed (server tools,
containers, files kept at Anthropic) are refused by name. ``cache_control`` is a hint and changes no answer.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

from serving_proxy.translation.chat_request import Thinking

_NOTHING: Final = msgspec.Raw()


class _Tagged(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, gc=False, kw_only=True):
    cache_control: Any = None


class TextBlock(_Tagged, tag="text"):
    text: str
    citations: Any = None


class Base64Source(msgspec.Struct, tag_field="type", tag="base64", forbid_unknown_fields=True, gc=False):
    media_type: str
    data: str


class URLSource(msgspec.Struct, tag_field="type", tag="url", forbid_unknown_fields=True, gc=False):
    url: str


class TextSource(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True, gc=False):
    data: str
    media_type: str = "text/plain"


class ImageBlock(_Tagged, tag="image"):
    source: Base64Source | URLSource
    transformations: Any = None


class Citations(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    enabled: bool | None = None


class DocumentBlock(_Tagged, tag="document"):
    source: Base64Source | TextSource | URLSource
    title: str | None = None
    context: str | None = None
    citations: Citations | None = None


class ThinkingBlock(_Tagged, tag="thinking"):
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(_Tagged, tag="redacted_thinking"):
    data: str


class ToolUseBlock(_Tagged, tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw
    caller: Any = None
    toolset_name: str | None = None


class ToolResultBlock(_Tagged, tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock] | None = None
    is_error: bool | None = None
    toolset_name: str | None = None


Block: TypeAlias = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
)


class Message(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: (
        str
        | list[
            TextBlock
            | ImageBlock
            | DocumentBlock
            | ThinkingBlock
            | RedactedThinkingBlock
            | ToolUseBlock
            | ToolResultBlock
        ]
    )


class Tool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    input_schema: msgspec.Raw = _NOTHING
    type: str | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: Any = None
    eager_input_streaming: bool | None = None
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    input_examples: list[Any] | None = None


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class JSONFormat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["json_schema"]
    schema: msgspec.Raw


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JSONFormat | None = None


class Metadata(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    user_id: str | None = None


class MessagesRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body."""

    messages: list[Message]
    max_tokens: int
    model: str | None = None
    system: str | list[TextBlock] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard", "fast"] | None = None
    cache_control: Any = None
    client_request_id: Any = None


decode_messages: Final = msgspec.json.Decoder(MessagesRequest)
