"""Whether a call fits the rate limits of its endpoint, and what it used.

Calls are counted when they are let in. Tokens are known when the answer is: a call is let in while the window's tokens
are below the limit, and the call after the one that went over is refused. A refused call counts for
nothing and is told when there will be room, if nobody else takes it first.

Counts are shared by the workers of one machine (:mod:`serving_proxy.rate_limits.shared_table`), and with Redis by all
machines; while Redis does not answer, each machine applies the limits to its own calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from functools import partial
from math import ceil
from typing import Any, Final

from servelens.clock import Clock
from servelens.errors import Backpressure, Unavailable
from serving_proxy.endpoint import Endpoint, RateLimit
from serving_proxy.rate_limits.limit_choice import Budget, budgets_of
from serving_proxy.rate_limits.redis_counts import RedisCounts
from serving_proxy.rate_limits.shared_table import SharedTable, TableFull
from serving_proxy.rate_limits.window import Window, hash_of

logger = logging.getLogger(__name__)

_MOST_PLANS: Final = 20_000


class RateLimited(Backpressure):
    """A rate limit of the endpoint is used up; ``retry_after_s`` is when there will be room again."""


class _Plan:
    """What is checked for one requester of one endpoint."""

    __slots__ = ("budgets", "calls", "limits", "tokens")

    def __init__(self, limits: tuple[RateLimit, ...], checks: Sequence[tuple[Budget, Window]]) -> None:
        self.limits = limits
        self.budgets = [budget for budget, _ in checks]
        self.calls = [check for check in checks if check[0].measure == "calls"]
        self.tokens = [check for check in checks if check[0].measure == "tokens"]


class _Asking:
    """An admission that begins when somebody awaits it, and not at all if the call ends before."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._ask = ask

    def __await__(self) -> Generator[Any, None, None]:
        return self._ask().__await__()


class Admission:
    """The rate limits of one worker, on its event loop. ``open_table`` joins the machine's counts, at the first
    limited call; ``redis`` counts across machines.
    """

    def __init__(
        self, open_table: Callable[[], SharedTable], clock: Clock, redis: RedisCounts | None = None
    ) -> None:
        self.refused = 0
        """Calls refused so far."""
        self.fallbacks = 0
        """Calls so far that were counted on this machine alone because Redis did not answer."""
        self._open_table = open_table
        self._clock = clock
        self._redis = redis
        self._table: SharedTable | None = None
        self._plans: dict[tuple[str, str | None], _Plan] = {}
        self._windows: dict[str, Window] = {}
        self._charging: set[asyncio.Task[None]] = set()

    def admit(self, endpoint: Endpoint, requester: str | None) -> Awaitable[None] | None:
        """Count the call, or raise RateLimited. With Redis something to await, which may raise it too."""
        plan = self._plan(endpoint, requester)
        redis = self._redis
        if redis is not None:
            if redis.may_answer:
                return _Asking(partial(self._admit_everywhere, redis, plan))
            self.fallbacks += 1
        self._admit_here(plan)
        return None

    def used(self, endpoint: Endpoint, requester: str | None, tokens: int) -> None:
        """Charge the tokens of an answer to the limits that count them."""
        plan = self._plan(endpoint, requester)
        if not plan.tokens or tokens <= 0:
            return
        now_us = self._clock.now_us()
        for _, window in plan.tokens:
            self._count(window, now_us, tokens)
        if self._redis is not None and self._redis.may_answer:
            budgets = [budget for budget, _ in plan.tokens]
            task = asyncio.get_running_loop().create_task(_charge(self._redis, budgets, tokens))
            self._charging.add(task)
            task.add_done_callback(self._charging.discard)

    async def close(self) -> None:
        """Finish charging and leave the shared counts."""
        if self._charging:
            await asyncio.wait(self._charging)
        if self._redis is not None:
            await self._redis.close()
        if self._table is not None:
            self._table.close(self._clock.now_us() // 1_000_000)
            self._table = None

    def _admit_here(self, plan: _Plan) -> None:
        now_us = self._clock.now_us()
        for budget, window in plan.tokens:
            if window.total(now_us) >= budget.amount:
                raise self._refusal(budget, window.wait_s(now_us, window.total(now_us) + 1 - budget.amount))
        # Counted first and looked at then: of two workers that take the last call at once, none misses the other.
        for done, (budget, window) in enumerate(plan.calls):
            if not self._count(window, now_us, 1):
                wait_s = 1.0
            elif (total := window.total(now_us)) <= budget.amount:
                continue
            else:
                window.take_back(now_us, 1)
                wait_s = window.wait_s(now_us, total - budget.amount)
            for _, counted in plan.calls[:done]:
                counted.take_back(now_us, 1)
            raise self._refusal(budget, wait_s)

    async def _admit_everywhere(self, redis: RedisCounts, plan: _Plan) -> None:
        try:
            refused = await redis.admit(plan.budgets)
        except Unavailable:
            self.fallbacks += 1
            self._admit_here(plan)
            return
        if refused is not None:
            raise self._refusal(*refused)
        now_us = self._clock.now_us()
        for _, window in plan.calls:  # so that this machine knows them if Redis goes away
            self._count(window, now_us, 1)

    def _count(self, window: Window, now_us: int, amount: int) -> bool:
        try:
            window.add(now_us, amount)
        except TableFull:
            logger.warning("too many rate-limited requesters within a minute: a call is not counted")
            return False
        return True

    def _refusal(self, budget: Budget, wait_s: float) -> RateLimited:
        self.refused += 1
        endpoint = budget.name.partition("\0")[0]
        return RateLimited(
            f"The rate limit of endpoint {endpoint!r} for {budget.who} is used up: {budget.amount} {budget.measure} "
            f"in {budget.period_s:g} s.",
            retry_after_s=wait_s,
            field="rate_limits",
            fix=f"Try again in {max(1, ceil(wait_s))} s.",
        )

    def _plan(self, endpoint: Endpoint, requester: str | None) -> _Plan:
        limits = endpoint.gateway.rate_limits
        plan = self._plans.get((endpoint.name, requester))
        if plan is None or plan.limits is not limits:
            budgets = budgets_of(endpoint.name, limits, requester)
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
                self._windows.clear()
            plan = _Plan(limits, [(budget, self._window(budget)) for budget in budgets])
            self._plans[endpoint.name, requester] = plan
        return plan

    def _window(self, budget: Budget) -> Window:
        window = self._windows.get(budget.name)
        if window is None:
            window = Window(self._joined(), hash_of(budget.name), budget.period_s)
            self._windows[budget.name] = window
        return window

    def _joined(self) -> SharedTable:
        if self._table is None:
            try:
                self._table = self._open_table()
            except Unavailable as error:
                logger.error("rate limits hold for this worker alone: %s", error)
                self._table = SharedTable.private()
        return self._table


async def _charge(redis: RedisCounts, budgets: Sequence[Budget], tokens: int) -> None:
    try:
        await redis.charge(budgets, tokens)
    except Unavailable as error:
        logger.debug("tokens not charged across machines: %s", error)
