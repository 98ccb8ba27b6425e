"""Keeps retries from becoming the load that holds a backend down.

Of late, retries may be a share of the calls, and a few a second besides, so that a quiet entity can retry too. "Of
late" is an exponential window of ten seconds, brought up to date about once a second and when a retry is asked for:
a call costs one addition.

Source: Finagle's RetryBudget (share of the requests, minimum retries per second, 10 s)
https://twitter.github.io/finagle/guide/Clients.html#retries; why: Site Reliability Engineering (Google, 2016), ch. 21.
"""

from __future__ import annotations

from math import exp
from typing import Final

_WINDOW_S: Final = 10.0
_MINIMUM_PER_S: Final = 3.0


class RetryBudget:
    """One served entity's. ``calls`` is counted up by whoever sends a first attempt."""

    __slots__ = ("_calls_seen", "_recent_calls", "_recent_retries", "_seen_s", "calls")

    def __init__(self, now_s: float) -> None:
        self.calls = 0
        self._calls_seen = 0
        self._recent_calls = 0.0
        self._recent_retries = 0.0
        self._seen_s = now_s

    def allows(self, share: float, now_s: float) -> bool:
        """Whether one more retry fits; nothing does when ``share`` is 0."""
        self.age(now_s)
        bound = share * self._recent_calls + _MINIMUM_PER_S * _WINDOW_S
        return share > 0 and self._recent_retries + 1 <= bound

    def spend(self) -> None:
        """A retry is made."""
        self._recent_retries += 1

    def age(self, now_s: float) -> None:
        """Age what was counted; the calls since the last time are taken as spread evenly over that time."""
        new, self._calls_seen = self.calls - self._calls_seen, self.calls
        passed_s = now_s - self._seen_s
        if passed_s <= 0:
            self._recent_calls += new
            return
        self._seen_s = now_s
        kept = exp(-passed_s / _WINDOW_S)
        self._recent_calls = self._recent_calls * kept + new * (1 - kept) * _WINDOW_S / passed_s
        self._recent_retries *= kept
