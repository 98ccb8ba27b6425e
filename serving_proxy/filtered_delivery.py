"""An answer that is changed on its way to the client: translated into another dialect, or screened by guardrails.

Invariants: nothing reaches the client that the filter, and who holds it back for the scorer, have not let go; a whole answer
is gathered, within a bound, before anything of it goes out. An answer that is held back when the backend has ended it is
complete when it has been let go: nothing but the whole call's deadline is waited for then, since a check has its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from servelens.errors import ServelensError, Unavailable
from serving_proxy.answer_filter import AnswerFilter
from serving_proxy.delivery import Delivery
from serving_proxy.failure import Failure, failure_of

if TYPE_CHECKING:
    from serving_proxy.guardrails.output_hold import AnswerHold


@dataclass(slots=True, eq=False)
class FilteredDelivery(Delivery):
    """What :class:`~serving_proxy.relay.Relay` does with a filter."""

    filter: AnswerFilter | None = field(default=None, init=False)
    hold: AnswerHold | None = field(default=None, init=False)
    """Who holds the answer back for the scorer; it is given what the filter lets go."""
    marks: dict[str, str] | None = field(default=None, init=False)
    """Tags of the record beside the client's own: what the scorer found."""

    def let_go(self, data: bytes) -> None:
        """A part of the answer has been looked at."""
        self._take(data)

    def hold_ended(self) -> None:
        """All of the answer has been let go, and the backend has ended it."""
        if self.hold is not None:  # else nobody waits for it any more
            self._complete()

    def break_off(self, error: ServelensError) -> None:
        """The answer may not go on, or makes no sense."""
        failure = failure_of(error)
        self._abandon()
        is_backends = isinstance(error, Unavailable)
        self.fail(failure._replace(error_type="upstream_invalid") if is_backends else failure)

    def _drop_hold(self) -> None:
        hold, self.hold = self.hold, None
        if hold is not None:
            hold.close()

    def _gather(self, data: bytes) -> None:
        """A whole answer that is to be changed: nothing goes out before it is complete."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._plane.limits.max_answer_bytes:
            limit = self._plane.limits.max_answer_bytes
            self._abandon()
            self.fail(self._upstream_failure("upstream_invalid", 502, f"sent more than {limit} bytes"))
        else:
            self._wait_on()

    def _end_filter(self, filtering: AnswerFilter) -> bool:
        """The backend has ended its answer. Let go of what the filter held back; False when that was the end of it, or
        when it is held back for the scorer.
        """
        hold = self.hold
        try:
            body = filtering.end() if self.is_stream else self._whole(filtering)
        except ServelensError as error:
            self.break_off(error)
            return False
        if hold is not None:
            self._wait_for_hold()
            if self.is_stream:
                hold.end(body)
            else:
                hold.whole(self.status, body)
            return False
        if body or not self.is_stream:
            self._take(body)
        return True

    def _whole(self, filtering: AnswerFilter) -> bytes:
        self.status, body = filtering.whole(self.status, b"".join(self._held))
        self._held = []
        self._held_bytes = 0
        return body

    def _complete(self) -> None:
        """The answer has ended as it should."""
        raise NotImplementedError

    def _wait_for_hold(self) -> None:
        """The backend has ended: nothing more is waited for from it."""
        raise NotImplementedError

    def _take(self, data: bytes, framed: bytes | None = None) -> None:
        """Bytes as the client is to get them."""
        raise NotImplementedError

    def _wait_on(self) -> None:
        """The backend has sent something: wait for more."""
        raise NotImplementedError

    def _abandon(self, error_type: str = "upstream_timeout") -> None:
        """Wait for nothing more."""
        raise NotImplementedError

    def _upstream_failure(self, error_type: str, status: int, what: str) -> Failure:
        raise NotImplementedError
