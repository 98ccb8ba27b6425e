"""Answers that the connection gives by itself: to what is no invocation, or not even a request."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving_proxy.failure import Failure
from serving_proxy.request import Request


def plain_answer(
    status: int,
    body: bytes,
    headers: list[tuple[bytes, bytes]],
    *,
    close: bool,
    allow: bool = False,
    bodiless: bool = False,
) -> bytes:
    """A whole answer with a JSON body. ``allow`` names the methods, ``bodiless`` is the answer to HEAD."""
    parts = [STATUS_LINE[status]]
    parts += [b"%b: %b\r\n" % field for field in headers]
    if allow:
        parts.append(b"allow: POST, OPTIONS\r\n")
    if status != 204:
        parts.append(b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body))
    parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    if not bodiless:
        parts.append(body)
    return b"".join(parts)


def method_answer(request: Request, headers: list[tuple[bytes, bytes]], *, close: bool) -> bytes:
    """The answer to another method than POST: only POST is an invocation."""
    method = request.head.method
    if method == b"OPTIONS":
        return plain_answer(204, b"", headers, close=close, allow=True)
    failure = Failure("invalid_request", 405, f"Use POST here, not {method.decode()}.", "method")
    body = request.head.target.dialect.error(failure)
    return plain_answer(405, body, headers, close=close, allow=True, bodiless=method == b"HEAD")


def headers_too_large(limit: int) -> Failure:
    return Failure("invalid_request", 431, f"The request's headers are larger than {limit} bytes.")


def body_too_large(limit: int) -> Failure:
    return Failure("body_too_large", 413, f"The request body is larger than {limit} bytes.", "body")
