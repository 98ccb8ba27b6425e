"""Why an invocation did not get its answer, apart from how a dialect words it.

``error_type`` is the machine word that goes on the record (the list is in :mod:`collector.record`);
``status`` is what the client is sent; ``message`` names the field and the fix.
"""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple

from servelens.errors import Backpressure, Invalid, Missing, ServelensError, SpoolFull
from serving_proxy.endpoint import Timeouts
from serving_proxy.guardrails.blocked import Blocked
from serving_proxy.upstream import Loss


class Failure(NamedTuple):
    """One failure, ready for any dialect's error shape."""

    error_type: str
    status: int
    message: str
    field: str | None = None
    retry_after_s: float | None = None

    @property
    def head_lines(self) -> bytes:
        """The fields of an answer's head that go with it."""
        if self.status == 401:
            return b"www-authenticate: Bearer\r\n"
        if self.retry_after_s is not None:
            return b"retry-after: %d\r\n" % max(1, ceil(self.retry_after_s))
        return b"retry-after: 1\r\n" if self.status == 503 else b""


# A dialect answers a wrong request with 400 and not 422; the record's word says what was wrong.
_ANSWERS: Final[tuple[tuple[type[ServelensError], str, int], ...]] = (
    (Blocked, "blocked", 400),
    (Invalid, "invalid_request", 400),
    (Missing, "unknown_endpoint", 404),
    (SpoolFull, "spool_full", 503),
)


def failure_of(error: ServelensError) -> Failure:
    """What a client is told about one of our own errors."""
    text = f"{error.message} {error.fix}" if error.fix else error.message
    if isinstance(error, Backpressure) and not isinstance(error, SpoolFull):
        error_type = "rate_limited" if error.field == "rate_limits" else "overloaded"
        return Failure(error_type, error.status, text, error.field, error.retry_after_s)
    for kind, error_type, status in _ANSWERS:
        if isinstance(error, kind):
            return Failure(error_type, status, text, error.field)
    return Failure("internal", error.status, text, error.field)


ANSWER_TO: Final = {
    Loss.STALE: ("upstream_reset", 502),
    Loss.REFUSED: ("upstream_connect", 502),
    Loss.SLOW_CONNECT: ("upstream_timeout", 504),
    Loss.SILENT: ("upstream_timeout", 504),
    Loss.RESET: ("upstream_reset", 502),
    Loss.INVALID: ("upstream_invalid", 502),
}


def lateness(timeouts: Timeouts, total_s: float, *, is_over: bool, has_begun: bool) -> str:
    """Which deadline a backend has missed: the whole, the pause between chunks, or the beginning. ``total_s``: the
    time that this call had as a whole.
    """
    if is_over:
        return f"did not finish its answer within {round(total_s, 2):g} s"
    if has_begun:
        return f"sent nothing for {timeouts.idle_s:g} s in the middle of its answer"
    return f"did not begin its answer within {timeouts.first_byte_s:g} s"
