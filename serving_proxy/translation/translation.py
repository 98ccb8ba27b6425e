"""What stands between one kind of call and one backend API."""

from __future__ import annotations

from typing import Protocol

from serving_proxy.answer_filter import AnswerFilter


class Translation(Protocol):
    """Between one kind of call and one backend API. Without state: one object serves all calls."""

    operation: str
    """The path below the backend's base."""

    def request(self, body: bytes, *, model: str | None) -> bytes:
        """The body for the backend. Raises Invalid, whose ``field`` is the JSON path of what has no counterpart."""
        ...

    def answer(self, *, model: str, request_id: str, request: bytes) -> AnswerFilter:
        """What one answer goes through. ``model`` is what the client asked for, ``request`` its own body."""
        ...
