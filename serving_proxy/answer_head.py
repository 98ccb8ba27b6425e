"""The head of an answer to the client: the backend's own fields without those of its connection, and our
ids.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from serving_proxy.upstream import Headers

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


def without_named(headers: Headers, connection: bytes) -> Headers:
    """The fields but those that the backend's own field ``connection`` names."""
    named = {name.strip().lower() for name in connection.split(b",")}
    return [field for field in headers if field[0] not in named]


def answer_head(
    status: int,
    headers: Headers,
    request_id: str,
    served_entity: str | None,
    *,
    length: int | None,
    chunked: bool,
    close: bool,
) -> bytes:
    """Status line and fields; with neither a length nor chunks the end of the connection ends the body."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    ident = request_id.encode()
    head = b"%bx-request-id: %b\r\ndatabricks-request-id: %b\r\n" % (line, ident, ident)
    for field in headers:
        if field[0] not in _NOT_PASSED_ON:
            head += b"%b: %b\r\n" % field
    if served_entity is not None:
        head += b"x-servelens-served-entity: %b\r\n" % served_entity.encode()
    if length is not None:
        head += b"content-length: %d\r\n" % length
    elif chunked:
        head += b"transfer-encoding: chunked\r\n"
    return head + (b"connection: close\r\n\r\n" if close else b"\r\n")
