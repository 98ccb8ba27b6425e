"""The same budgets counted in Redis, for proxies on several machines, through the library ``limits``.

Its sliding window counter (https://limits.readthedocs.io/en/stable/strategies.html) keeps the counts of this period and
of the one before, and lets the latter fade out evenly: exact for an even load, and atomic in Redis for calls.
Tokens are known only afterwards: a call is let in while there is room, and what it took is added
whatever the limit.

A call waits for Redis no longer than ``deadline_s``. After a failure Redis is left alone for a while.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

from servelens.clock import Clock
from servelens.errors import InvalidSettings, Unavailable
from serving_proxy.rate_limits.limit_choice import Budget

logger = logging.getLogger(__name__)

_UNBOUNDED: Final = 2**53 - 1  # the largest whole number that Redis' scripts compute exactly
_CONNECTIONS: Final = 64
_T = TypeVar("_T")


class RedisCounts:
    """``url``: ``redis://[user:password@]host:port[/db]``, ``rediss://…`` or ``redis+unix://…``. Belongs to one event
    loop. Raises InvalidSettings when the address or the installation is not usable; whether Redis
    answers is seen later.
    """

    def __init__(self, url: str, clock: Clock, *, deadline_s: float = 0.05, pause_s: float = 1.0) -> None:
        try:
            # Imported here, since a proxy without Redis should not pay for it.
            from limits.aio.storage import RedisStorage
            from limits.errors import ConfigurationError
            from redis.asyncio import BlockingConnectionPool
        except ModuleNotFoundError as error:
            raise InvalidSettings(
                "counting in Redis needs the library 'limits'.",
                field="proxy.rate_limit_url",
                fix="Run: pip install 'servelens[redis]'",
            ) from error
        if not url.startswith(("redis://", "rediss://", "redis+unix://")):
            raise InvalidSettings(
                "this is not an address of Redis.",
                field="proxy.rate_limit_url",
                fix="Use redis://host:port or rediss://host:port.",
            )
        try:
            self._connections = BlockingConnectionPool.from_url(
                url.replace("redis+unix", "unix", 1), max_connections=_CONNECTIONS, timeout=deadline_s
            )
            options: dict[str, Any] = {"connection_pool": self._connections}
            self._storage = RedisStorage(
                f"async+{url}", implementation="redispy", key_prefix="servelens", **options
            )
        except (ConfigurationError, ValueError) as error:
            raise InvalidSettings(
                f"the address of Redis is not usable: {error}", field="proxy.rate_limit_url"
            ) from error
        raised = self._storage.base_exceptions
        own = raised if isinstance(raised, tuple) else (raised,)
        self._failures: tuple[type[Exception], ...] = (*own, OSError, TimeoutError)
        self._clock = clock
        self._deadline_s = deadline_s
        self._pause_s = pause_s
        self._away_until = -math.inf
        self._is_away = False

    @property
    def may_answer(self) -> bool:
        """Whether it is worth asking; not so for a while after a failure."""
        return self._clock.monotonic() >= self._away_until

    async def admit(self, budgets: Sequence[Budget]) -> tuple[Budget, float] | None:
        """Count a call on all ``budgets``; or, where one has no room, the budget and the seconds to wait.

        Raises Unavailable when Redis does not answer in time: the call may or may not have been counted.
        """
        return await self._ask(self._admit(budgets))

    async def charge(self, budgets: Sequence[Budget], amount: int) -> None:
        """Add to budgets whether there is room or not. Raises Unavailable."""
        await self._ask(
            asyncio.gather(
                *(
                    self._storage.acquire_sliding_window_entry(
                        _key(budget), _UNBOUNDED, _seconds(budget), amount
                    )
                    for budget in budgets
                )
            )
        )

    async def close(self) -> None:
        """Close the connections."""
        try:
            await self._connections.aclose()
        except self._failures as error:
            logger.debug("connection to Redis not closed: %s", error)

    async def _admit(self, budgets: Sequence[Budget]) -> tuple[Budget, float] | None:
        counted = [budget for budget in budgets if budget.measure == "calls"]
        # Looked at before anything is counted: a call that one budget refuses must not use up another. The one
        # that is counted first looks for itself.
        others = [budget for budget in budgets if budget not in counted[:1]]
        waits = await asyncio.gather(*(self._wait_s(budget) for budget in others))
        for budget, wait_s in zip(others, waits, strict=True):
            if wait_s is not None:
                return budget, wait_s
        for budget in counted:
            if not await self._storage.acquire_sliding_window_entry(
                _key(budget), budget.amount, _seconds(budget)
            ):
                return budget, await self._wait_s(budget) or 1.0
        return None

    async def _wait_s(self, budget: Budget) -> float | None:
        """Seconds until there is room for one more, ``None`` when there is now."""
        period_s = _seconds(budget)
        before, before_ttl_s, now, now_ttl_s = await self._storage.get_sliding_window(_key(budget), period_s)
        allowed = budget.amount - 1
        if math.floor(before * before_ttl_s / period_s) + now <= allowed:
            return None
        if allowed < 0:
            return float(period_s)
        if now <= allowed:  # the old period fades out far enough within this one
            return before_ttl_s - period_s * (allowed + 1 - now) / before
        return now_ttl_s - period_s * (allowed + 1) / now

    async def _ask(self, question: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await question
        except self._failures as error:
            self._away_until = self._clock.monotonic() + self._pause_s
            if not self._is_away:
                self._is_away = True
                logger.warning(
                    "Redis does not answer, each machine counts rate limits for itself: %s",
                    str(error) or type(error).__name__,
                )
            raise Unavailable("Redis does not answer.") from error
        if self._is_away:
            self._is_away = False
            logger.warning("Redis answers again: rate limits hold across machines")
        return answer


def _key(budget: Budget) -> str:
    return hashlib.blake2b(budget.name.encode(), digest_size=16).hexdigest()


def _seconds(budget: Budget) -> int:
    return max(1, math.ceil(budget.period_s))
