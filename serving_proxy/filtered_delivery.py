"""An answer that is changed on its way to the client: translated into another dialect, or screened by guardrails.

Invariant: nothing reaches the client that the filter has not let go; a whole answer is gathered, within a bound, before
anything of it goes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from servelens.errors import ServelensError
from serving_proxy.answer_filter import AnswerFilter
from serving_proxy.delivery import Delivery
from serving_proxy.failure import Failure, failure_of


@dataclass(slots=True, eq=False)
class FilteredDelivery(Delivery):
    """What :class:`~serving_proxy.relay.Relay` does with a filter."""

    filter: AnswerFilter | None = field(default=None, init=False)

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
        """Let go of what the filter held back; False when that was the end of it."""
        try:
            if self.is_stream:
                rest = filtering.end()
                if rest:
                    self._take(rest)
                return True
            body = b"".join(self._held)
            self.status, body = filtering.whole(self.status, body)
        except ServelensError as error:
            self._break_off(error)
            return False
        self._held = []
        self._held_bytes = 0
        self._take(body)
        return True

    def _break_off(self, error: ServelensError) -> None:
        """The answer may not go on, or makes no sense."""
        failure = failure_of(error)
        self._abandon()
        self.fail(failure if failure.status < 500 else failure._replace(error_type="upstream_invalid"))

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
