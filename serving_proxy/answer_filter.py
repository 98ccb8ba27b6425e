"""What changes an answer between the backend and the client: translation into the client's dialect, and
guardrails on the output.

One object serves one answer. The record keeps what the filter gives, since that is what the client was sent.
"""

from __future__ import annotations

from typing import Protocol

from serving_proxy.upstream import Headers


class AnswerFilter(Protocol):
    """Called in order: ``begin``, then ``whole`` once, or ``chunk`` for each piece of a stream and ``end``.

    Each method may raise :class:`~servelens.errors.Invalid` (an output guardrail blocks) or
    :class:`~servelens.errors.Unavailable` (the backend's answer makes no sense); the client is told in its
    dialect.
    """

    def begin(self, status: int, headers: Headers, *, is_stream: bool) -> Headers:
        """The fields for the client; the body's length and its framing are written by the relay."""
        ...

    def whole(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Status and body for the client, of a complete answer of any status."""
        ...

    def chunk(self, data: bytes) -> bytes:
        """What the client is sent for these bytes of a stream, which may be cut anywhere: whole events, or
        nothing yet.
        """
        ...

    def end(self) -> bytes:
        """The backend's stream is complete: what was held back, with the end that the client's dialect has."""
        ...


class FilterChain:
    """Two filters, the first nearer to the backend."""

    def __init__(self, first: AnswerFilter, second: AnswerFilter) -> None:
        self._first = first
        self._second = second

    def begin(self, status: int, headers: Headers, *, is_stream: bool) -> Headers:
        return self._second.begin(
            status, self._first.begin(status, headers, is_stream=is_stream), is_stream=is_stream
        )

    def whole(self, status: int, body: bytes) -> tuple[int, bytes]:
        return self._second.whole(*self._first.whole(status, body))

    def chunk(self, data: bytes) -> bytes:
        passed = self._first.chunk(data)
        return self._second.chunk(passed) if passed else b""

    def end(self) -> bytes:
        rest = self._first.end()
        return (self._second.chunk(rest) if rest else b"") + self._second.end()
