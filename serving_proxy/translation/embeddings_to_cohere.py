"""OpenAI's embeddings by Cohere's v2 embed.

Sources: https://platform.openai.com/docs/api-reference/embeddings and https://docs.cohere.com/reference/embed. Cohere
wants to know what the embeddings are for: ``input_type`` may be given beside OpenAI's fields and is
``search_document`` otherwise. A text that is too long is refused, as OpenAI does, and not cut.
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from typing import Any, Final, Literal

import msgspec

from servelens.errors import Unavailable
from serving_proxy.dialects.openai import OpenAI
from serving_proxy.translation.strict_json import FloatCount, read_request, refuse, write_request
from serving_proxy.translation.translated_answer import TranslatedAnswer

_MAX_TEXTS: Final = 96
_OPENAI: Final = OpenAI()
_encode: Final = msgspec.json.Encoder().encode


class _Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    input: str | list[str | int | list[int]]
    model: str | None = None
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None
    input_type: Literal["search_document", "search_query", "classification", "clustering"] | None = None
    user: str | None = None
    usage_context: Any = None
    client_request_id: Any = None


class _Format(msgspec.Struct, gc=False):
    encoding_format: str | None = None


class _Vectors(msgspec.Struct, gc=False):
    float: list[msgspec.Raw]


class _Units(msgspec.Struct, gc=False):
    input_tokens: FloatCount | None = None


class _Meta(msgspec.Struct, gc=False):
    billed_units: _Units | None = None
    tokens: _Units | None = None


class _Answer(msgspec.Struct, gc=False):
    embeddings: _Vectors
    meta: _Meta | None = None


_request: Final = msgspec.json.Decoder(_Request)
_format: Final = msgspec.json.Decoder(_Format)
_decode_answer: Final = msgspec.json.Decoder(_Answer).decode
_decode_vector: Final = msgspec.json.Decoder(list[float]).decode


def cohere_embed_request(body: bytes, *, model: str | None) -> bytes:
    """The body for ``/v2/embed``. Raises Invalid, which names the field that has no counterpart."""
    request = read_request(_request, body)
    given = [request.input] if isinstance(request.input, str) else request.input
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) != len(given):
        refuse("input", "Tokens of OpenAI's tokenizer mean nothing to Cohere's models.", "Send texts.")
    if len(texts) > _MAX_TEXTS:
        refuse("input", f"Cohere's API embeds at most {_MAX_TEXTS} texts a call.", "Send fewer at once.")
    written: dict[str, Any] = {
        "model": model or request.model,
        "texts": texts,
        "input_type": request.input_type or "search_document",
        "embedding_types": ["float"],
        "truncate": "NONE",
    }
    if request.dimensions is not None:
        written["output_dimension"] = request.dimensions
    return write_request(written)


class CohereToEmbeddings(TranslatedAnswer):
    """One answer of ``/v2/embed``."""

    def __init__(self, *, model: str, request: bytes) -> None:
        super().__init__(_OPENAI, overloaded=503)
        self._model = model
        self._in_base64 = read_request(_format, request).encoding_format == "base64"

    def _answer(self, body: bytes) -> tuple[int, bytes]:
        answer = _decode_answer(body)
        data = []
        for number, raw in enumerate(answer.embeddings.float):
            vector: Any = _packed(_decode_vector(bytes(raw))) if self._in_base64 else raw
            data.append({"object": "embedding", "index": number, "embedding": vector})
        whole: dict[str, Any] = {"object": "list", "data": data, "model": self._model}
        tokens = _tokens(answer.meta)
        if tokens is not None:
            whole["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return 200, _encode(whole)

    def _event(self, data: bytes) -> None:
        raise Unavailable("The backend sent a stream of embeddings, which its API does not document.")

    def _finish(self) -> None:
        self._event(b"")


def _packed(vector: list[float]) -> str:
    """The numbers as OpenAI packs them: little-endian 32-bit floats in base64."""
    try:
        numbers = array("f", vector)
    except OverflowError as error:
        raise Unavailable(f"The backend's answer has a number that is no embedding's: {error}.") from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()


def _tokens(meta: _Meta | None) -> int | None:
    if meta is None:
        return None
    for units in (meta.billed_units, meta.tokens):
        if units is not None and units.input_tokens is not None:
            return int(units.input_tokens)
    return None
