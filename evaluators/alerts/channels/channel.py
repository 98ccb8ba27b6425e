"""What every channel is: something that takes a document, and says what came of it.

Invariant: whatever a receiver does, or does not do, is an :class:`Outcome` within the channel's time limit, never an
exception; and no outcome holds an address or a secret of the channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """``again`` says whether the same may succeed later; ``retry_after_s`` is the receiver's own wish for when. ``status``
    is the HTTP or SMTP status, ``None`` without one.
    """

    ok: bool
    detail: str
    status: int | None = None
    again: bool = False
    retry_after_s: float | None = None


class Channel(Protocol):
    """Tells one receiver. ``send`` blocks, and is called by one thread at a time."""

    @property
    def kind(self) -> str:
        """``webhook``, ``slack``, ``email`` or ``pagerduty``."""
        ...

    def send(self, document: Mapping[str, Any]) -> Outcome:
        """Tell of ``document`` (:func:`~evaluators.alerts.notification.document_of`)."""
        ...
