"""How the two ways in answer: CloudEvents with RFC 9457 problem details, OTLP with its own messages.

A failure of OTLP is a ``google.rpc.Status`` in the encoding of the request
(https://opentelemetry.io/docs/specs/otlp/#failures-1), of which the specification uses the message. In protobuf it is two
fields, which are written here: https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto.
"""

from __future__ import annotations

from http import HTTPStatus
from math import ceil
from typing import Final, NamedTuple

import msgspec

from collector.intake.refusal import Refusal

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_CODES: Final = {
    400: 3,  # INVALID_ARGUMENT
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 5,  # NOT_FOUND
    408: 4,  # DEADLINE_EXCEEDED
    413: 8,  # RESOURCE_EXHAUSTED
    429: 8,
    503: 14,  # UNAVAILABLE
}
_UNKNOWN_CODE: Final = 2


class Answer(NamedTuple):
    """Status, content type and body of an answer, and further header fields."""

    status: int
    content_type: str | None = None
    body: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()


def problem(refusal: Refusal) -> Answer:
    """The refusal as RFC 9457 has it."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": str(refusal),
    }
    if refusal.field is not None:
        document["field"] = refusal.field
    return Answer(refusal.status, _PROBLEM, msgspec.json.encode(document), _fields(refusal))


def otlp_failure(refusal: Refusal, content_type: str) -> Answer:
    """The refusal as a ``google.rpc.Status``; in JSON unless the request was in protobuf."""
    code, message = _CODES.get(refusal.status, _UNKNOWN_CODE), str(refusal)
    if content_type == PROTOBUF:
        text = message.encode("utf-8", "replace")
        body = b"\x08" + _varint(code) + b"\x12" + _varint(len(text)) + text
        return Answer(refusal.status, PROTOBUF, body, _fields(refusal))
    return Answer(
        refusal.status, JSON, msgspec.json.encode({"code": code, "message": message}), _fields(refusal)
    )


def _fields(refusal: Refusal) -> tuple[tuple[bytes, bytes], ...]:
    fields = []
    if refusal.retry_after_s is not None:
        fields.append((b"retry-after", b"%d" % max(1, ceil(refusal.retry_after_s))))
    if refusal.status == 401:
        fields.append(
            (b"www-authenticate", b'Bearer, Basic realm="servelens: any name, the API key as password"')
        )
    if refusal.status == 408:
        # After 413 the rest of the body is read and thrown away: who is cut off while sending sees no answer, and
        # sends the same again.
        fields.append((b"connection", b"close"))
    return tuple(fields)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
