"""Rate limits across machines, with a real Redis: who counts together, and what happens while it is away."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from servelens.clock import SystemClock
from servelens.errors import InvalidSettings
from serving_proxy.admission import Admission, RateLimited
from serving_proxy.endpoint import Endpoint, RateLimit
from serving_proxy.rate_limits.redis_counts import RedisCounts
from tests.redis_server import MISSING, RedisServer, redis_binary, redis_server
from tests.unit.serving_proxy.limited import admission, limited
from tests.unit.serving_proxy.test_rate_limit_processes import granted, hammered

PATIENCE_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    binary = redis_binary()
    if binary is None:
        pytest.skip(MISSING)
    with redis_server(binary, free_port()) as server:
        yield server


@asynccontextmanager
async def machines(
    folder: Path, url: str, count: int = 2, *, deadline_s: float = 2.0, pause_s: float = 0.05
) -> AsyncIterator[list[Admission]]:
    """Workers that share nothing but Redis."""
    clock = SystemClock()
    running = [
        admission(
            folder / f"machine {number}",
            "proxy-0",
            clock,
            redis=RedisCounts(url, clock, deadline_s=deadline_s, pause_s=pause_s),
        )
        for number in range(count)
    ]
    try:
        yield running
    finally:
        for each in running:
            await each.close()


async def asked(worker: Admission, endpoint: Endpoint, requester: str | None = None) -> RateLimited | None:
    try:
        waited = worker.admit(endpoint, requester)
        if waited is not None:
            await waited
    except RateLimited as error:
        return error
    return None


async def let_in(worker: Admission, endpoint: Endpoint, requester: str | None = None, *, of: int) -> int:
    return sum([await asked(worker, endpoint, requester) is None for _ in range(of)])


async def test_machines_share_a_limit(tmp_path: Path, redis: RedisServer) -> None:
    endpoint = limited(RateLimit("endpoint", calls=5), RateLimit("user", calls=4), name="shared")
    async with machines(tmp_path, redis.url) as (one, two):
        assert await let_in(one, endpoint, "ada", of=3) == 3
        assert await let_in(two, endpoint, "ada", of=3) == 1
        assert await let_in(two, endpoint, "bob", of=3) == 1  # the refused calls used up nothing
        refused = await asked(one, endpoint, "bob")
        assert refused is not None
        assert "all callers together" in str(refused)
        assert 50 < refused.retry_after_s <= 60 + 60 / 5
        assert one.fallbacks == two.fallbacks == 0


async def test_retry_after_is_when_there_is_room(tmp_path: Path, redis: RedisServer) -> None:
    endpoint = limited(RateLimit("endpoint", calls=4, period_s=1), name="waiting")
    async with machines(tmp_path, redis.url) as (one, two):
        assert await let_in(one, endpoint, of=9) == 4
        refused = await asked(two, endpoint)
        assert refused is not None
        assert 0 < refused.retry_after_s <= 1.25
        await asyncio.sleep(refused.retry_after_s + 0.05)
        assert await asked(two, endpoint) is None
        assert await asked(two, endpoint) is not None


async def test_tokens_count_on_all_machines(tmp_path: Path, redis: RedisServer) -> None:
    endpoint = limited(RateLimit("user", tokens=100), name="tokens")
    async with machines(tmp_path, redis.url) as (one, two):
        assert await let_in(one, endpoint, "ada", of=2) == 2
        one.used(endpoint, "ada", 60)
        one.used(endpoint, "ada", 5_000)  # over the limit, and charged all the same
        await one.close()
        assert await asked(two, endpoint, "ada") is not None
        assert await asked(two, endpoint, "bob") is None


def test_processes_on_two_machines_within_5_percent(tmp_path: Path, redis: RedisServer) -> None:
    outcomes = hammered([tmp_path / "one", tmp_path / "two"], 300, 60, 3, 2, redis.url)
    total = granted(outcomes)
    assert all(285 <= count <= 315 for count in total.values()), total
    assert [outcome["fallbacks"] for outcome in outcomes] == [0, 0]
    assert all(outcome["refused"] > 0 for outcome in outcomes)


async def test_without_redis_each_machine_limits_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = limited(RateLimit("endpoint", calls=5))
    with caplog.at_level(logging.WARNING):
        async with machines(tmp_path, f"redis://127.0.0.1:{free_port()}") as (one, two):
            assert await let_in(one, endpoint, of=9) == 5
            assert await let_in(two, endpoint, of=9) == 5
            one.used(endpoint, None, 10)
            assert one.fallbacks == 9
    said = [record.message for record in caplog.records if "Redis does not answer" in record.message]
    assert len(said) == 2  # once each


async def test_redis_that_hangs_costs_a_call_its_deadline_once(tmp_path: Path, redis: RedisServer) -> None:
    endpoint = limited(RateLimit("endpoint", calls=1_000), name="hanging")
    loop = asyncio.get_running_loop()
    async with machines(tmp_path, redis.url, 1, deadline_s=0.3, pause_s=60) as (one,):
        assert await asked(one, endpoint) is None
        redis.process.send_signal(signal.SIGSTOP)
        try:
            began = loop.time()
            assert await asked(one, endpoint) is None
            assert 0.25 <= loop.time() - began < 2
            assert one.fallbacks == 1
            assert await let_in(one, endpoint, of=1_200) == 998  # the two before were counted here too
            assert loop.time() - began < 5
        finally:
            redis.process.send_signal(signal.SIGCONT)


async def test_redis_that_comes_back_is_used_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    binary = redis_binary()
    if binary is None:
        pytest.skip(MISSING)
    port = free_port()
    endpoint = limited(RateLimit("endpoint", calls=10))
    async with machines(tmp_path, f"redis://127.0.0.1:{port}/0") as (one, two):
        with redis_server(binary, port):
            assert await let_in(one, endpoint, of=4) == 4
            assert await let_in(two, endpoint, of=9) == 6
        assert await let_in(one, endpoint, of=20) == 6  # its own four are remembered
        assert one.fallbacks == 20
        with redis_server(binary, port), caplog.at_level(logging.WARNING):
            async with asyncio.timeout(PATIENCE_S):
                while not any("answers again" in record.message for record in caplog.records):
                    await asked(one, endpoint)
                    await asyncio.sleep(0.01)
            assert await let_in(one, endpoint, of=30) <= 10


@pytest.mark.parametrize("url", ["memcached://127.0.0.1", "", "redis://[", "redis://host:port"])
def test_an_address_that_is_not_usable(url: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        RedisCounts(url, SystemClock())
    assert refused.value.field == "proxy.rate_limit_url"


async def test_many_calls_at_once(tmp_path: Path, redis: RedisServer) -> None:
    endpoint = limited(RateLimit("endpoint", calls=150), RateLimit("user", calls=1_000), name="burst")
    async with machines(tmp_path, redis.url, deadline_s=10.0) as running:
        outcomes = await asyncio.gather(*(asked(running[n % 2], endpoint, "ada") for n in range(600)))
        assert outcomes.count(None) == 150
        assert [worker.fallbacks for worker in running] == [0, 0]
