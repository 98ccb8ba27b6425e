"""One leader among several processes that could do the same work: the others stand by and take over.

A leader that is killed is replaced when its lease has run out, one that stops in order at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from servelens.errors import ServelensError
from servelens.lease import POLL_S, RENEW_S, Lease

logger = logging.getLogger(__name__)

_WATCH_S: Final = 0.1


class Leadership:
    """Follows ``lease`` until it is told to stop."""

    def __init__(self, lease: Lease, *, renew_s: float = RENEW_S, poll_s: float = POLL_S) -> None:
        self._lease = lease
        self._renew_s = renew_s
        self._poll_s = poll_s

    @property
    def leads(self) -> bool:
        """Whether this process leads, by its own clock: never beyond what the database grants."""
        return self._lease.term is not None

    def run(self, lead: Callable[[threading.Event], None], stop: threading.Event) -> None:
        """Call ``lead`` whenever this process leads, with an event that is set when it should return: the lease was lost,
        or ``stop`` is set. Returns after ``stop`` is set, with the lease released; what ``lead`` raises ends it as well.
        """
        try:
            while not stop.is_set():
                if self._acquired():
                    self._lead(lead, stop)
                else:
                    stop.wait(self._poll_s)
        finally:
            self._release()

    def _lead(self, lead: Callable[[threading.Event], None], stop: threading.Event) -> None:
        logger.info("leading: lease=%s term=%s", self._lease.name, self._lease.term)
        enough, over = threading.Event(), threading.Event()
        keeper = threading.Thread(
            target=self._keep, args=(enough, over, stop), name="leadership", daemon=True
        )
        keeper.start()
        try:
            lead(enough)
        finally:
            over.set()
            keeper.join()
        if not stop.is_set():
            logger.warning("no longer leading: lease=%s", self._lease.name)

    def _keep(self, enough: threading.Event, over: threading.Event, stop: threading.Event) -> None:
        """Renew the lease while ``lead`` runs, also while it winds up; say when it should."""
        waited = 0.0
        while not over.wait(_WATCH_S):
            waited += _WATCH_S
            if stop.is_set() or not self.leads:
                enough.set()
            if waited >= self._renew_s and self.leads:
                waited = 0.0
                self._acquired()

    def _acquired(self) -> bool:
        try:
            return self._lease.acquire()
        except ServelensError as error:
            logger.warning("the lease cannot be asked for: lease=%s reason=%s", self._lease.name, error)
            return self.leads

    def _release(self) -> None:
        try:
            self._lease.release()
        except ServelensError as error:
            logger.warning("the lease runs out by itself: lease=%s reason=%s", self._lease.name, error)
