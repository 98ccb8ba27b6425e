"""How long the spool's writer waits for records to gather, so that neither they nor the event loop wait for it.

Waking a thread costs the loop more than framing a record. So when several records in a row have come within a
millisecond, the writer gathers for a millisecond without being woken; a pair of them is no rush: whatever came next
would wait for nothing.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from collector.hand_over import Group, HandOver
from servelens.clock import Clock

_LINGER_S: Final = 0.02
_BUSY_S: Final = 0.001
_POLL_S: Final = 0.001
_POLLS: Final = 3
_RUSH: Final = 4


class Gathering:
    """Takes what has gathered in ``queue``. ``lingers``: nobody waits for the records, so they may gather longer."""

    def __init__(self, queue: HandOver, clock: Clock, *, lingers: bool) -> None:
        self._queue = queue
        self._clock = clock
        self._lingers = lingers
        self._polls = 0
        self._in_a_row = 0

    def groups(self, patience_s: float) -> deque[Group]:
        """What has gathered; waits up to ``patience_s`` seconds for something."""
        queue = self._queue
        if queue.hurry.is_set():
            pass
        elif self._polls:
            self._polls -= 1
            time.sleep(_POLL_S)
        else:
            before = self._clock.monotonic()
            if queue.wait(patience_s):
                if self._lingers:
                    queue.hurry.wait(_LINGER_S)
                elif self._clock.monotonic() - before >= _BUSY_S:
                    self._in_a_row = 0
                else:
                    self._in_a_row += 1
                    if self._in_a_row >= _RUSH:
                        self._polls = _POLLS
        groups = queue.take()
        if groups and self._polls:
            self._polls = _POLLS
        return groups
