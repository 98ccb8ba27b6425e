"""A sender's event is not taken, and what it is told."""

from __future__ import annotations

from servelens.errors import Backpressure, ServelensError


class Refusal(ServelensError):
    """Ends a request with ``status`` (4xx or 5xx); ``retry_after_s``: seconds until trying again makes sense."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        fix: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, field=field, fix=fix)
        self.status = status
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, error: ServelensError) -> Refusal:
        """One of our own errors, met on the way into the spool: it is ours to repair, so the sender may try again."""
        if isinstance(error, Refusal):
            return error
        wait_s = error.retry_after_s if isinstance(error, Backpressure) else 5.0
        return cls(503, error.message, field=error.field, fix=error.fix, retry_after_s=wait_s)
