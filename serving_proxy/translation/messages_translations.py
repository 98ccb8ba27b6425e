"""The translations for Anthropic clients: at OpenAI-compatible backends, and through their words at Cohere and AI21."""

from __future__ import annotations

from typing import Final

import msgspec

from servelens.errors import Invalid
from serving_proxy.answer_filter import AnswerFilter, FilterChain
from serving_proxy.translation.chat_to_messages import ChatToMessages
from serving_proxy.translation.messages_to_chat import chat_body
from serving_proxy.translation.strict_json import NO_JSON
from serving_proxy.translation.translation import Translation

_WITH_USAGE: Final = b'{"stream_options":{"include_usage":true}}'
_FIELDS_OF_MESSAGES: Final = {
    "stop": "stop_sequences",
    "reasoning_effort": "output_config.effort",
    "response_format.type": "output_config.format",
    "response_format.json_schema.schema": "output_config.format.schema",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "max_completion_tokens": "max_tokens",
    "user": "metadata.user_id",
}


class MessagesToChat:
    """An Anthropic client at an OpenAI-compatible ``/chat/completions``."""

    operation = "/chat/completions"

    def request(self, body: bytes, *, model: str | None) -> bytes:
        return chat_body(body, model=model).body

    def answer(self, *, model: str, request_id: str, request: bytes) -> AnswerFilter:
        return _messages_answer(model, request_id, request)


class MessagesThroughChat:
    """An Anthropic client at an API that OpenAI's chat is translated for: the two one after the other."""

    def __init__(self, second: Translation) -> None:
        self.operation = second.operation
        self._second = second

    def request(self, body: bytes, *, model: str | None) -> bytes:
        chat = chat_body(body, model=model, extended=True)
        try:
            return self._second.request(chat.body, model=model)
        except Invalid as error:
            error.field = _field_of_messages(error.field, chat.origins)
            raise

    def answer(self, *, model: str, request_id: str, request: bytes) -> AnswerFilter:
        first = self._second.answer(model=model, request_id=request_id, request=_WITH_USAGE)
        return FilterChain(first, _messages_answer(model, request_id, request))


class _Thinking(msgspec.Struct, gc=False):
    type: str


class _MessagesAsked(msgspec.Struct, gc=False):
    thinking: _Thinking | None = None
    stop_sequences: list[str] | None = None


_messages_asked: Final = msgspec.json.Decoder(_MessagesAsked).decode


def _messages_answer(model: str, request_id: str, request: bytes) -> ChatToMessages:
    thinks, stops = False, None
    if b'"thinking"' in request or b'"stop_sequences"' in request:
        try:
            asked = _messages_asked(request)
        except NO_JSON as error:
            raise Invalid(f"The request body cannot be read: {error}.", field="body") from error
        thinks = asked.thinking is not None and asked.thinking.type != "disabled"
        stops = asked.stop_sequences
    return ChatToMessages(model=model, request_id=request_id, thinks=thinks, stops=stops or ())


def _field_of_messages(field: str | None, origins: list[str]) -> str | None:
    """The client's own word for a field of the request in between."""
    if field is None:
        return None
    if field.startswith("messages[") and (end := field.find("]")) > 0:
        number = field[len("messages[") : end]
        if number.isdigit() and int(number) < len(origins):
            return origins[int(number)]
    if field.startswith("tools["):
        return field.replace(".function.parameters", ".input_schema").replace(".function.", ".")
    return _FIELDS_OF_MESSAGES.get(field, field)
