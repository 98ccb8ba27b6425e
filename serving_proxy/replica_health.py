"""Whether a replica gets calls, by what its last answers and its health checks say.

A replica that fails ``eject_after`` calls in a row is ejected. After ``ejection_s`` it is half open: one call is let
through, the next one after twice that time, and so on up to ten times it; the first success brings it back. A
replica whose health check fails is down, and no call is spent on finding out whether it still is. Invariant: nothing
here decides for the group; a group whose replicas are all out asks them all the same (:mod:`.replica_group`).

Source: Envoy, outlier detection (consecutive gateway failures, ejection time that grows with each ejection)
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier; the half-open state is that of the
circuit breaker (M. Nygard, Release It!, 2nd ed., ch. 5).
"""

from __future__ import annotations

from typing import Final

from serving_proxy.endpoint import HealthCheck

_MAX_DOUBLED: Final = 10
_PACE_WEIGHT: Final = 0.1


class ReplicaHealth:
    """One replica's state. ``usable``: neither ejected nor down. ``suspect``: a success would change something.

    ``pace_s`` is a moving average of the seconds until its answers begin, 0 before the first one; ``answered_s`` is
    when the last one began that was not slow for the group; ``slow_answers`` counts those since.
    """

    __slots__ = (
        *("_checks", "_for_slowness", "_lets_through_s", "_periods", "failures", "is_down"),
        *("answered_s", "is_ejected", "pace_s", "slow_answers", "suspect", "usable"),
    )

    def __init__(self) -> None:
        self.usable = True
        self.suspect = False
        self.is_ejected = False
        self.is_down = False
        self.failures = 0
        self.slow_answers = 0
        self.pace_s = 0.0
        self.answered_s = 0.0
        self._for_slowness = False
        self._periods = 0
        self._lets_through_s = 0.0
        self._checks = 0

    def failed(self, settings: HealthCheck, now_s: float) -> bool:
        """One more failure; whether it has ejected the replica."""
        self.failures += 1
        self.suspect = True
        if self.is_ejected or not 0 < settings.eject_after <= self.failures:
            return False
        self._eject(settings, now_s)
        return True

    def succeeded(self) -> None:
        """A whole answer that is not a failure."""
        self.failures = 0
        if self.is_ejected and self._for_slowness and self.slow_answers:
            return  # it answers, but no faster than before
        self._restore()

    def is_too_slow(self, settings: HealthCheck, now_s: float) -> None:
        """Eject it for being slower than the others."""
        if not self.is_ejected and settings.eject_after > 0:
            self._for_slowness = True
            self._eject(settings, now_s)

    def begun(self, seconds: float, now_s: float) -> None:
        """An answer begins, after so long, which is not slow."""
        pace_s = self.pace_s
        self.pace_s = pace_s + _PACE_WEIGHT * (seconds - pace_s) if pace_s else seconds
        self.answered_s = now_s
        self.slow_answers = 0

    def begun_slowly(self, seconds: float) -> None:
        """One more answer begins later than it should."""
        self.pace_s += _PACE_WEIGHT * (seconds - self.pace_s)
        self.slow_answers += 1

    def lets_through(self, settings: HealthCheck, now_s: float) -> bool:
        """Whether an ejected replica takes this one call to try; the next one comes after twice the time."""
        if self.is_down or not self.is_ejected or now_s < self._lets_through_s:
            return False
        self._wait(settings, now_s)
        return True

    def checked(self, settings: HealthCheck, *, ok: bool) -> bool:
        """The outcome of a health check; whether it has changed the replica's state."""
        if ok is not self.is_down:  # nothing new
            self._checks = 0
            return False
        self._checks += 1
        if self._checks < (settings.up_after if ok else settings.down_after):
            return False
        self._checks = 0
        self.is_down = not ok
        self.failures = 0
        self._restore()
        return True

    def is_asked_no_more(self) -> None:
        """Health checks are over; whether it is well only calls can tell."""
        self._checks = 0
        if self.is_down:
            self.is_down = False
            self._restore()

    def _eject(self, settings: HealthCheck, now_s: float) -> None:
        self.is_ejected = True
        self.suspect = True
        self.usable = False
        self._wait(settings, now_s)

    def _wait(self, settings: HealthCheck, now_s: float) -> None:
        self._lets_through_s = now_s + settings.ejection_s * min(2**self._periods, _MAX_DOUBLED)
        self._periods = min(self._periods + 1, _MAX_DOUBLED)

    def _restore(self) -> None:
        self.is_ejected = False
        self._for_slowness = False
        self.slow_answers = 0
        self.suspect = False
        self._periods = 0
        self.usable = not self.is_down
