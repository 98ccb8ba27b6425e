"""What a request's head says about its own size and the end of its body."""

from __future__ import annotations

from collections.abc import Sequence

_Headers = Sequence[tuple[bytes, bytes]]


def is_chunked_once(headers: _Headers) -> bool:
    """Whether the only transfer coding is ``chunked``: of any other nobody knows where the body ends (RFC 9112 §6.1)."""
    return [value.lower() for name, value in headers if name == b"transfer-encoding"] == [b"chunked"]


def head_size(url: bytes, headers: _Headers) -> int:
    """About how many bytes the head has."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)
