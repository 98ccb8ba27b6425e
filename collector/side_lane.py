"""The lane of one table that does not take commits: when to try again, and from where."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from collector.lane import Lane
from servelens.errors import ServelensError

logger = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.2
_LAST_RETRY_S = 10.0


class SideLane:
    """A :class:`~collector.lane.Lane` for one table, with its back-off.

    ``known`` says that the table has told, since it last failed, what it holds: a question that costs little,
    so that nothing is read and built for a storage that is still away.
    """

    def __init__(self, uri: str, lane: Lane, reason: str, *, now: float, behind_since_us: int | None) -> None:
        self.uri = uri
        self.lane = lane
        self.reason: str | None = reason
        self.behind_since_us = behind_since_us
        self.retry_at = now + _FIRST_RETRY_S
        self.known = False
        self.lookup: Future[dict[str, int | None]] | None = None
        self._delay_s = _FIRST_RETRY_S

    def failed(self, reason: str, *, now: float) -> None:
        """Go back to the last record that is in the table and wait, twice as long as the last time."""
        self.reason = reason
        self._delay_s = min(2 * self._delay_s, _LAST_RETRY_S)
        self.retry_at = now + self._delay_s
        self.start_over(now=now)

    def start_over(self, *, now: float) -> None:
        """Read again, after asking the table what it holds."""
        self.lane.rewind(now=now)
        self.known = False

    def succeeded(self) -> None:
        """The table takes commits again."""
        self.reason = None
        self._delay_s = _FIRST_RETRY_S


def failure_reason(uri: str, error: BaseException) -> str:
    """Say in the log that a table does not take its commit; the reason in a sentence."""
    if isinstance(error, ServelensError | TimeoutError):
        logger.warning("table does not take commits: table=%s reason=%s", uri, error)
    else:
        logger.error("commit failed: table=%s", uri, exc_info=error)
    return str(error)
