"""Endpoints with rate limits, and the admission of workers that share a folder."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from servelens.clock import Clock
from serving_proxy.admission import Admission, RateLimited
from serving_proxy.endpoint import Backend, Endpoint, Gateway, RateLimit, Route, ServedEntity
from serving_proxy.rate_limits.redis_counts import RedisCounts
from serving_proxy.rate_limits.shared_table import SharedTable


def limited(*limits: RateLimit, name: str = "chat") -> Endpoint:
    """An endpoint with these limits."""
    entity = ServedEntity("only", Backend(("http://127.0.0.1:1",)))
    return Endpoint(name, (entity,), (Route("only", 100),), gateway=Gateway(rate_limits=limits))


def admission(
    folder: Path, slot: str, clock: Clock, *, entries: int = 64, redis: RedisCounts | None = None
) -> Admission:
    """The admission of the worker ``slot``."""
    return Admission(partial(SharedTable.open, folder / "counts", slot, entries=entries), clock, redis)


def refusal(worker: Admission, endpoint: Endpoint, requester: str | None = None) -> RateLimited | None:
    """Ask once; what a refused call is told."""
    try:
        waited = worker.admit(endpoint, requester)
    except RateLimited as error:
        return error
    assert waited is None
    return None


def admitted(worker: Admission, endpoint: Endpoint, requester: str | None = None, *, of: int = 1) -> int:
    """How many ``of`` so many calls at once are let in."""
    return sum(refusal(worker, endpoint, requester) is None for _ in range(of))


def close(*workers: Admission) -> None:
    """End these workers."""

    async def end() -> None:
        for worker in workers:
            await worker.close()

    asyncio.run(end())
