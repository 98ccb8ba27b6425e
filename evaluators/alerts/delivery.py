"""The job that sends: what may be told by now is announced, and what waits in the outbox goes to its channel.

Invariants: a channel that is slow or away delays no other, for each has a thread; and after one failure that may pass it
is left alone for a while, so a receiver that hangs costs one time limit a run and not one for each notification. Every
attempt is logged and kept. A channel that is no longer in the settings fails for good, with that reason.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

from evaluators.alerts.channels.channel import Channel, Outcome
from evaluators.alerts.outbox import Claimed, Outbox, pause_s
from evaluators.alerts.store import AlertStore
from servelens.clock import Clock

logger = logging.getLogger(__name__)

KEPT: Final = timedelta(days=90)
"""For how long ended incidents and their deliveries stay."""

_PER_RUN: Final = 200
_THREADS: Final = 16
_UPKEEP: Final = timedelta(hours=1)


class Deliverer:
    """Sends what waits. ``rules`` are the names of those in the settings: incidents of others end. ``public_url`` is where
    people find the dashboard."""

    def __init__(
        self,
        store: AlertStore,
        outbox: Outbox,
        channels: Mapping[str, Channel],
        rules: frozenset[str],
        clock: Clock,
        *,
        public_url: str | None = None,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._channels = dict(channels)
        self._rules = rules
        self._clock = clock
        self._public_url = public_url
        self._upkept = float("-inf")

    def run(self, stop: threading.Event | None = None) -> Mapping[str, int]:
        """Announce and send; how many notifications were ``sent``, ``failed``, ``expired`` or wait on."""
        self._upkeep()
        self._store.announce()
        names = self._outbox.channels()
        counts = {"sent": 0, "waiting": 0, "failed": 0, "expired": 0}
        if not names:
            return counts
        ended = stop or threading.Event()
        with ThreadPoolExecutor(min(len(names), _THREADS), thread_name_prefix="alert") as pool:
            for statuses in pool.map(lambda name: self._drain(name, ended), names):
                for status in statuses:
                    counts[status] += 1
        return counts

    def _upkeep(self) -> None:
        now = self._clock.monotonic()
        if now - self._upkept < _UPKEEP.total_seconds():
            return
        self._upkept = now
        retired = self._store.retire(self._rules)
        forgotten = self._store.forget(self._clock.now() - KEPT)
        if retired or forgotten:
            logger.info("alerts: states of removed rules=%d incidents forgotten=%d", retired, forgotten)

    def _drain(self, name: str, stop: threading.Event) -> list[str]:
        statuses: list[str] = []
        while len(statuses) < _PER_RUN and not stop.is_set():
            claimed = self._outbox.claim(name)
            if claimed is None:
                break
            outcome = self._sent(claimed)
            status = self._outbox.finish(claimed, outcome)
            statuses.append(status)
            logger.log(
                logging.INFO if outcome.ok else logging.WARNING,
                "alert delivery: channel=%s id=%s attempt=%d status=%s detail=%s",
                name,
                claimed.document["id"],
                claimed.attempt,
                status,
                outcome.detail,
            )
            if not outcome.ok and outcome.again:
                pause = pause_s(claimed.attempt, outcome.retry_after_s)
                self._outbox.postpone(name, self._clock.now() + timedelta(seconds=pause))
                break
        return statuses

    def _sent(self, claimed: Claimed) -> Outcome:
        channel = self._channels.get(claimed.channel)
        if channel is None:
            return Outcome(False, "there is no such channel in the settings any more")
        document = dict(claimed.document)
        if self._public_url is not None:
            document["link"] = link_to(self._public_url, document["endpoint"])
        return channel.send(document)


def link_to(public_url: str, endpoint: str) -> str:
    """Where a person finds the endpoint's quality page.

    >>> link_to("https://lens.example/", "chat")
    'https://lens.example/quality?endpoint=chat'
    """
    return f"{public_url.rstrip('/')}/quality?{urlencode({'endpoint': endpoint})}"
