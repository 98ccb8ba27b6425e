"""The replicas of one served entity: who is asked next.

The one with the fewest calls outstanding among those usable; between equals they take turns. When none is usable all
are asked as if they were (Envoy calls it panic), because a replica that may fail is better than a call that must,
until the entity's circuit breaker opens.

Counting outstanding calls alone would keep sending a slow replica as many as the others ever have at once. So one that
has several calls and for eight times as long as the fastest one usually takes has not begun an answer that took no
longer than that is asked only when the others are in no better state; and one whose last five answers all took longer
is ejected, as long as another's last one did not.

Source: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from servelens.clock import Clock
from serving_proxy.circuit_breaker import CircuitBreaker
from serving_proxy.concurrency import Line
from serving_proxy.endpoint import ServedEntity
from serving_proxy.replicas import Replica
from serving_proxy.retry_budget import RetryBudget
from serving_proxy.rewriting import unchanged_operations

_NONE: Final[frozenset[str]] = frozenset()
_SLOW_TIMES: Final = 8.0
_SLOW_AT_LEAST_S: Final = 0.05
_SLOW_IN_A_ROW: Final = 5
_STALLED: Final = 1_000_000  # calls outstanding are never as many


class ReplicaGroup:
    """One served entity's replicas with its retry budget, circuit breaker and waiting line. It outlives snapshots;
    ``entity`` is the configuration of now. ``slow_over_s``: a later beginning of an answer counts as slow.
    """

    def __init__(self, entity: ServedEntity, replicas: Sequence[Replica], clock: Clock) -> None:
        self.budget = RetryBudget(clock.monotonic())
        self.breaker = CircuitBreaker()
        self.line = Line(clock)
        self.ejections = 0
        self.slow_over_s = inf
        self._clock = clock
        self.configure(entity, replicas)

    def configure(self, entity: ServedEntity, replicas: Sequence[Replica]) -> None:
        """Go on with another configuration."""
        self.entity = entity
        self.max_connections = entity.backend.pool.max_connections
        self.replicas = tuple(replicas)
        self._health = entity.backend.health
        self._order = deque(replicas)
        self._only = replicas[0] if len(replicas) == 1 else None
        self.configuration = object()
        """Another one with each change of the configuration."""
        self.unchanged = unchanged_operations(entity)

    def pick(self, now_s: float, tried: frozenset[str] = _NONE) -> Replica | None:
        """A usable replica that has not been ``tried``, any when none is usable; ``None`` when there is none. It may
        have as many calls outstanding as it may have.
        """
        only = self._only
        if only is not None and only.health.usable and not tried:
            return only
        order = self._order
        order.rotate(-1)
        best = None
        fewest: float = inf
        for replica in order:
            health = replica.health
            if health.usable:
                outstanding = replica.outstanding
                if outstanding > 1 and now_s - health.answered_s > self.slow_over_s:
                    outstanding += _STALLED
                if outstanding < fewest and (not tried or replica.url not in tried):
                    best = replica
                    fewest = outstanding
            elif not tried and health.lets_through(self._health, now_s):
                return replica
        if best is None and self.none_usable:
            return self.pick_untried(tried)
        return best

    def pick_untried(self, tried: frozenset[str]) -> Replica | None:
        """A replica that has not been ``tried``, whatever state it is in; ``None`` when there is none."""
        left = [replica for replica in self._order if replica.url not in tried]
        return min(left, key=lambda each: (each.health.is_down, each.outstanding), default=None)

    @property
    def none_usable(self) -> bool:
        return not any(replica.health.usable for replica in self.replicas)

    def refuses(self) -> float | None:
        """How long a call should stay away because nobody answers; ``None`` when it need not."""
        breaker = self.breaker
        if not self.none_usable:
            breaker.answered()
            return None
        return breaker.refuses(self._health.ejection_s, self._clock.monotonic())

    def failed(self, replica: Replica) -> None:
        """An attempt failed in a way that may be the replica's fault."""
        if replica.health.failed(self._health, self._clock.monotonic()):
            self.ejections += 1

    def answered_slowly(self, replica: Replica, seconds: float) -> None:
        """An answer has begun later than ``slow_over_s``."""
        health = replica.health
        health.begun_slowly(seconds)
        if health.slow_answers < _SLOW_IN_A_ROW or health.is_ejected:
            return
        others = (other.health for other in self.replicas if other is not replica)
        if any(other.usable and other.pace_s and not other.slow_answers for other in others):
            health.is_too_slow(self._health, self._clock.monotonic())
            self.ejections += health.is_ejected

    def unanswered(self) -> None:
        """A call has ended without an answer from anybody."""
        if self.none_usable:
            self.breaker.failed(self._health.ejection_s, self._clock.monotonic())

    def await_turns(self, pump: Callable[[ReplicaGroup], None]) -> None:
        """Let ``pump`` hear of each call that is over, as long as others wait for that."""
        for replica in self.replicas:
            if self.line.places:
                replica.awaited_by[self] = pump
            else:
                replica.awaited_by.pop(self, None)

    def tidy(self) -> None:
        """Say anew what is slow, and what was of late. Called about once a second."""
        self.budget.age(self._clock.monotonic())
        paces = [each.health.pace_s for each in self.replicas if each.health.usable and each.health.pace_s]
        comparable = paces and len(self.replicas) > 1
        self.slow_over_s = max(_SLOW_AT_LEAST_S, _SLOW_TIMES * min(paces)) if comparable else inf
