"""KServe's V2 protocol (Open Inference Protocol): its errors, its paths, and bodies of JSON followed by raw tensors.

Invariant: bodies pass as they came; only what goes on the record is made readable.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and
"Binary tensor data extension" (Triton, extension_binary_data.md): the field ``Inference-Header-Content-Length`` is
the length of the JSON part; without it a body is JSON as a whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from collector.infer_bodies import BINARY_TENSORS_OMITTED
from collector.record import REQUEST_TOO_LARGE
from collector.tensors import SIZE_KEY, json_end
from servelens.errors import Invalid
from serving_proxy.failure import Failure

REQUEST_UNREADABLE: Final = "REQUEST_ENCODING_UNSUPPORTED"
"""On a record whose request came compressed in a way that could not be undone."""

JSON_LENGTH: Final = b"inference-header-content-length"
_MAX_DIGITS: Final = 20
_ENCODINGS: Final = (b"gzip", b"x-gzip", b"deflate")


class KServe:
    """Errors as the protocol words them: ``{"error": "…"}``."""

    def error(self, failure: Failure) -> bytes:
        text = f"{failure.field}: {failure.message}" if failure.field else failure.message
        return msgspec.json.encode({"error": text})

    def error_event(self, failure: Failure) -> bytes:
        return b"data: %b\n\n" % self.error(failure)


def operation(model: str, version: str | None = None) -> bytes:
    """The path of an inference call for a backend's model, below the server's root."""
    return model_path(model, version) + b"/infer"


def model_path(model: str, version: str | None = None) -> bytes:
    """The path of a model's metadata, below which all its calls are."""
    path = f"/v2/models/{quote(model, safe='')}"
    return (path if version is None else f"{path}/versions/{quote(version, safe='')}").encode()


def json_length(fields: Mapping[bytes, bytes], size: int) -> int:
    """How many of the ``size`` bytes of a body are its JSON part. Raises Invalid for a field that cannot be."""
    value = fields.get(JSON_LENGTH)
    if value is None:
        return size
    if not value.isdigit() or len(value) > _MAX_DIGITS or int(value) > size:
        raise Invalid(
            f"The JSON part cannot be {value[:_MAX_DIGITS].decode('latin-1')!r} bytes long, the body has {size}.",
            field=JSON_LENGTH.decode(),
            fix="Send the number of bytes before the first binary tensor.",
        )
    return int(value)


def json_part(body: bytes, fields: Mapping[bytes, bytes]) -> bytes:
    """The part of a call's body that is JSON; an empty object when the body is compressed, which is the backend's to
    undo. Raises Invalid when the length in the head cannot be.
    """
    if fields.get(b"content-encoding", b"identity").lower() != b"identity":
        return b"{}"
    return body[: json_length(fields, len(body))] if JSON_LENGTH in fields else body


def require_plain_json(fields: Mapping[bytes, bytes]) -> None:
    """Raise Invalid when a call's texts cannot be looked at, because they may be in compressed or binary parts."""
    if JSON_LENGTH in fields or fields.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Invalid(
            "This endpoint's guardrails cannot look into binary tensors or compressed requests.",
            field=JSON_LENGTH.decode() if JSON_LENGTH in fields else "content-encoding",
            fix="Send tensors as JSON (binary_data=False) without compression.",
        )


def readable(
    body: bytes, fields: Mapping[bytes, bytes], limit: int, *, tensors: bool = True
) -> tuple[bytes | None, str | None]:
    """What the record keeps of a request, in at most ``limit`` bytes, and a word on what is missing from it.

    The body without its compression. Where it is too long, or with ``tensors`` false (redaction must be able to read
    it), only the JSON part is kept: in it each binary tensor has name, shape, data type and ``binary_data_size``.
    """
    encoding = fields.get(b"content-encoding", b"identity").lower()
    if encoding != b"identity":
        if encoding not in _ENCODINGS:
            return None, REQUEST_UNREADABLE
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: take gzip and zlib framing alike
        try:
            body = inflater.decompress(body, limit + 1)
        except zlib.error:
            return None, REQUEST_UNREADABLE
        if not inflater.eof and len(body) <= limit:  # cut off
            return None, REQUEST_UNREADABLE
    value = fields.get(JSON_LENGTH, b"")
    length = int(value) if value.isdigit() and len(value) <= _MAX_DIGITS else len(body)
    if len(body) <= limit and (tensors or length >= len(body)):
        return body, None
    if length < len(body) and length <= limit:
        return body[:length], BINARY_TENSORS_OMITTED
    return None, REQUEST_TOO_LARGE


def without_tensors(body: bytes) -> tuple[bytes, str | None]:
    """What the record keeps of an answer where redaction must be able to read it: the JSON part, and a word on what
    is missing from it.
    """
    if SIZE_KEY not in body:
        return body, None
    try:
        end = json_end(body)
    except (ValueError, RecursionError):
        return body, None
    return (body, None) if end == len(body) else (body[:end], BINARY_TENSORS_OMITTED)
