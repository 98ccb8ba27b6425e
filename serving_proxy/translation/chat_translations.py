"""The translations for OpenAI clients: chat at Anthropic, Cohere and AI21, embeddings at Cohere."""

from __future__ import annotations

from typing import Final

import msgspec

from servelens.errors import Invalid
from serving_proxy.answer_filter import AnswerFilter
from serving_proxy.translation.ai21_to_chat import AI21ToChat
from serving_proxy.translation.anthropic_to_chat import AnthropicToChat
from serving_proxy.translation.chat_to_ai21 import ai21_request
from serving_proxy.translation.chat_to_anthropic import anthropic_request
from serving_proxy.translation.chat_to_cohere import cohere_request
from serving_proxy.translation.chat_writer import ChatWriter
from serving_proxy.translation.cohere_to_chat import CohereToChat
from serving_proxy.translation.embeddings_to_cohere import CohereToEmbeddings, cohere_embed_request
from serving_proxy.translation.strict_json import NO_JSON


class ChatToAnthropic:
    """An OpenAI client at ``/v1/messages``."""

    operation = "/v1/messages"

    def request(self, body: bytes, *, model: str | None) -> bytes:
        return anthropic_request(body, model=model)

    def answer(self, *, model: str, request_id: str, request: bytes) -> AnswerFilter:
        return AnthropicToChat(_chat_writer(model, request_id, request))


class ChatToCohere:
    """An OpenAI client at ``/v2/chat``."""

    operation = "/v2/chat"

    def request(self, body: bytes, *, model: str | None) -> bytes:
        return cohere_request(body, model=model)

    def answer(self, *, model: str, request_id: str, request: bytes) -> AnswerFilter:
        return CohereToChat(_chat_writer(model, request_id, request))


class ChatToAI21:
    """An OpenAI client at AI21's ``/chat/completions``."""

    operation = "/chat/completions"

    def request(self, body: bytes, *, model: str | None) -> bytes:
        return ai21_request(body, model=model)

    def answer(self, *, model: str, request_id: str, request: bytes) -> AnswerFilter:
        return AI21ToChat(_chat_writer(model, request_id, request))


class EmbeddingsToCohere:
    """An OpenAI client's embeddings at ``/v2/embed``."""

    operation = "/v2/embed"

    def request(self, body: bytes, *, model: str | None) -> bytes:
        return cohere_embed_request(body, model=model)

    def answer(self, *, model: str, request_id: str, request: bytes) -> AnswerFilter:
        return CohereToEmbeddings(model=model, request=request)


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _ChatAsked(msgspec.Struct, gc=False):
    stream_options: _StreamOptions | None = None


_chat_asked: Final = msgspec.json.Decoder(_ChatAsked).decode


def _chat_writer(model: str, request_id: str, request: bytes) -> ChatWriter:
    include_usage = False
    if b"include_usage" in request:
        try:
            options = _chat_asked(request).stream_options
        except NO_JSON as error:
            raise Invalid(f"The request body cannot be read: {error}.", field="body") from error
        include_usage = options is not None and options.include_usage is True
    return ChatWriter(model=model, request_id=request_id, include_usage=include_usage)
