"""The head of an answer to the client: the backend's own fields without those of its connection, and our
ids.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Final

Headers = list[tuple[bytes, bytes]]

JSON_LINES: Final = b"content-type: application/json\r\n"
"""The fields of an answer that is an error of ours."""

# Hop-by-hop (RFC 9110 §7.6.1), and what is written here instead.
_NOT_PASSED_ON: Final = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"content-length"),
        *(b"x-request-id", b"databricks-request-id", b"x-servelens-served-entity"),
    )
)
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


def header_lines(headers: Headers) -> bytes:
    """The backend's fields for the client, but those of its own connection and the ones it names in there."""
    dropped = _NOT_PASSED_ON
    for name, value in headers:
        if name == b"connection":
            dropped = dropped | {token.strip().lower() for token in value.split(b",")}
    return b"".join([b"%b: %b\r\n" % field for field in headers if field[0] not in dropped])


@lru_cache(maxsize=1024)
def entity_lines(served_entity: str, api: str) -> bytes:
    """The fields that tell who answered, the second where Databricks' SDK looks for it."""
    name = served_entity.encode()
    lines = b"x-servelens-served-entity: %b\r\n" % name
    return lines + b"served-model-name: %b\r\n" % name if api == "invocations" else lines


def whole_answer(status: int, lines: bytes, more_lines: bytes, request_id: str, body: bytes) -> bytes:
    """An answer with its body, on a connection that is kept."""
    ident = request_id.encode()
    return b"%bx-request-id: %b\r\ndatabricks-request-id: %b\r\n%b%bcontent-length: %d\r\n\r\n%b" % (
        _STATUS_LINES.get(status) or _status_line(status),
        ident,
        ident,
        lines,
        more_lines,
        len(body),
        body,
    )


def answer_head(
    status: int, lines: bytes, request_id: str, *, length: int | None, chunked: bool, close: bool
) -> bytes:
    """Status line and fields; with neither a length nor chunks the end of the connection ends the body."""
    line = _STATUS_LINES.get(status) or _status_line(status)
    ident = request_id.encode()
    head = b"%bx-request-id: %b\r\ndatabricks-request-id: %b\r\n%b" % (line, ident, ident, lines)
    if length is not None:
        head += b"content-length: %d\r\n" % length
    elif chunked:
        head += b"transfer-encoding: chunked\r\n"
    return head + (b"connection: close\r\n\r\n" if close else b"\r\n")


def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d \r\n" % status
