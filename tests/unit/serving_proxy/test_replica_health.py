"""When a replica is out and when it comes back, apart from sockets; and the health checks of a real worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from servelens.clock import ManualClock
from serving_proxy.circuit_breaker import CircuitBreaker
from serving_proxy.endpoint import Backend, HealthCheck, Retries, ServedEntity
from serving_proxy.replica_group import ReplicaGroup
from serving_proxy.replica_health import ReplicaHealth
from serving_proxy.replicas import Replica
from tests.backends import Behaviour, OpenAIBackend, Received
from tests.unit.serving_proxy.running_proxy import call, chat, eventually, one_entity, running_proxy

SETTINGS = HealthCheck(eject_after=3, ejection_s=5.0)


def still() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


def ejected(now_s: float = 0.0) -> ReplicaHealth:
    health = ReplicaHealth()
    outcomes = [health.failed(SETTINGS, now_s) for _ in range(3)]
    assert outcomes == [False, False, True]
    return health


def group_of(count: int, clock: ManualClock) -> ReplicaGroup:
    loop = asyncio.get_running_loop()
    urls = tuple(f"http://127.0.0.1:{number + 1}" for number in range(count))
    entity = ServedEntity("only", Backend(urls, health=SETTINGS))
    return ReplicaGroup(entity, [Replica(url, loop, 8) for url in urls], clock)


def test_failures_that_are_not_in_a_row_do_not_eject() -> None:
    health = ReplicaHealth()
    for _ in range(10):
        assert not health.failed(SETTINGS, 0.0)
        assert not health.failed(SETTINGS, 0.0)
        health.succeeded()
    assert health.usable
    assert not health.suspect


def test_an_ejected_replica_lets_one_call_through_then_waits_longer_each_time() -> None:
    health = ejected()
    let_through = [second for second in range(150) if health.lets_through(SETTINGS, float(second))]
    assert not health.usable
    # 5 s, then 10, 20, 40 and at most 50 s
    assert let_through == [5, 15, 35, 75, 125]


def test_the_first_success_brings_it_back_and_forgets_the_times() -> None:
    health = ejected()
    assert health.lets_through(SETTINGS, 5.0)
    assert not health.failed(SETTINGS, 5.1)
    assert health.lets_through(SETTINGS, 15.0)
    health.succeeded()
    assert health.usable
    for _ in range(3):
        health.failed(SETTINGS, 20.0)
    assert not health.lets_through(SETTINGS, 24.9)
    assert health.lets_through(SETTINGS, 25.0)


def test_checks_take_a_replica_out_and_bring_it_back_in_their_own_measure() -> None:
    settings = replace(SETTINGS, down_after=2, up_after=3)
    health = ReplicaHealth()

    def check(*outcomes: bool) -> list[bool]:
        return [health.checked(settings, ok=ok) or not health.usable for ok in outcomes]

    assert check(False, True, False) == [False, False, False]
    assert check(False) == [True]
    assert check(True, True, False, True, True) == [True] * 5
    assert health.is_down
    assert check(True) == [True]
    assert health.usable


def test_a_replica_that_is_down_gets_no_call_to_try() -> None:
    health = ejected()
    health.checked(SETTINGS, ok=False)
    health.checked(SETTINGS, ok=False)
    assert not health.lets_through(SETTINGS, 1000.0)
    health.succeeded()  # a call that had begun before
    assert not health.usable
    health.is_asked_no_more()
    assert health.usable


async def test_fewest_outstanding_first_and_equals_take_turns() -> None:
    group = group_of(3, still())
    first, second, third = group.replicas
    assert {group.pick(0.0) for _ in range(3)} == set(group.replicas)
    first.outstanding, second.outstanding, third.outstanding = 2, 1, 1
    assert [group.pick(0.0) for _ in range(6)].count(first) == 0
    assert group.pick(0.0, frozenset((second.url, third.url))) is first
    assert group.pick(0.0, frozenset(each.url for each in group.replicas)) is None


async def test_ejected_replicas_are_left_out_until_all_of_them_are() -> None:
    clock = still()
    group = group_of(2, clock)
    bad, good = group.replicas
    for _ in range(3):
        group.failed(bad)
    good.outstanding = 100
    assert [group.pick(clock.monotonic()) for _ in range(4)] == [good] * 4
    assert group.ejections == 1
    assert (
        group.pick(clock.monotonic(), frozenset((good.url,))) is None
    )  # no use in asking the one that is out
    for _ in range(3):
        group.failed(good)
    assert group.pick(clock.monotonic()) is bad
    assert group.pick(clock.monotonic(), frozenset((bad.url,))) is good


async def test_a_try_is_made_with_first_attempts_only() -> None:
    clock = still()
    group = group_of(2, clock)
    bad, good = group.replicas
    for _ in range(3):
        group.failed(bad)
    clock.advance(5.0)
    assert group.pick(clock.monotonic(), frozenset((good.url,))) is None
    assert group.pick(clock.monotonic()) is bad
    assert group.pick(clock.monotonic()) is good


def is_usable(replica: Replica) -> bool:
    return replica.health.usable


def paced(group: ReplicaGroup, seconds: Iterable[float]) -> None:
    for replica, pace_s in zip(group.replicas, seconds, strict=True):
        replica.health.begun(pace_s, 0.0)
    group.tidy()


async def test_a_replica_much_slower_than_another_is_ejected_and_tried_again() -> None:
    clock = still()
    group = group_of(2, clock)
    slow, fast = group.replicas
    paced(group, (0.1, 0.1))
    assert group.slow_over_s == pytest.approx(0.8)
    for _ in range(5):
        assert is_usable(slow)
        group.answered_slowly(slow, 1.0)
    assert not is_usable(slow)
    clock.advance(5.0)
    group.tidy()
    assert group.slow_over_s == pytest.approx(0.8)  # the other one's pace still says what is slow
    assert group.pick(clock.monotonic()) is slow
    slow.health.succeeded()  # as slowly as before
    assert not is_usable(slow)
    clock.advance(10.0)
    assert group.pick(clock.monotonic()) is slow
    slow.health.begun(0.1, clock.monotonic())
    slow.health.succeeded()
    assert is_usable(slow)
    assert is_usable(fast)


async def test_a_replica_that_keeps_several_waiting_is_asked_last() -> None:
    clock = still()
    group = group_of(2, clock)
    silent, busy = group.replicas
    paced(group, (0.1, 0.1))
    silent.outstanding, busy.outstanding = 2, 50
    clock.advance(0.9)
    busy.health.begun(0.1, clock.monotonic())
    assert group.pick(clock.monotonic()) is busy
    silent.outstanding = 1
    assert group.pick(clock.monotonic()) is silent
    silent.outstanding = 2
    clock.advance(0.9)  # neither has answered
    assert group.pick(clock.monotonic()) is silent


async def test_when_all_are_slower_nobody_is_ejected() -> None:
    group = group_of(2, still())
    paced(group, (0.1, 0.1))
    for _ in range(20):
        for replica in group.replicas:
            group.answered_slowly(replica, 1.0)
    assert all(replica.health.usable for replica in group.replicas)


async def test_one_replica_is_never_slow() -> None:
    group = group_of(1, still())
    paced(group, (0.1,))
    assert group.slow_over_s == float("inf")


def test_a_breaker_opens_after_five_and_lets_one_call_a_period_through() -> None:
    breaker = CircuitBreaker()
    for _ in range(4):
        breaker.failed(5.0, 0.0)
    assert breaker.refuses(5.0, 0.0) is None
    breaker.failed(5.0, 0.0)
    assert breaker.refuses(5.0, 1.0) == pytest.approx(4.0)
    assert breaker.refuses(5.0, 5.0) is None
    assert breaker.refuses(5.0, 5.0) == pytest.approx(5.0)
    breaker.answered()
    assert breaker.refuses(5.0, 5.1) is None


async def test_checks_keep_calls_from_a_replica_that_is_not_well(tmp_path: Path) -> None:
    health = HealthCheck(path="/health", interval_s=0.02, down_after=2)
    sick = SickBackend()
    async with OpenAIBackend() as well, sick:
        snapshot = one_entity(sick.url, well.url, health=health, retries=Retries(attempts=1))
        async with running_proxy(tmp_path, snapshot) as proxy:
            await eventually(lambda: sick.checks >= 3)
            answers = [await call(proxy, chat()) for _ in range(6)]
            assert not [each for each in sick.received if each.method == "POST"]
            sick.is_well = True
            seen = sick.checks
            await eventually(lambda: sick.checks >= seen + 2)
            answers += [await call(proxy, chat()) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 12
    assert len([each for each in sick.received if each.method == "POST"]) == 3


async def test_a_replica_that_left_the_configuration_is_asked_no_more(tmp_path: Path) -> None:
    health = HealthCheck(path="/health", interval_s=0.02)
    async with (
        OpenAIBackend() as old,
        OpenAIBackend() as new,
        running_proxy(tmp_path, one_entity(old.url, health=health), refresh_s=0.02) as proxy,
    ):
        await eventually(lambda: len(old.received) >= 2)
        proxy.pending.append(one_entity(new.url, health=health))
        await eventually(lambda: len(new.received) >= 2)
        asked = len(old.received)
        await eventually(lambda: len(new.received) >= 6)
        assert len(old.received) == asked
    assert old.connections == new.connections == 1


class SickBackend(OpenAIBackend):
    """Answers ``GET`` with 503 until it is well."""

    def __init__(self) -> None:
        super().__init__()
        self.is_well = False
        self.checks = 0

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if request.method == "GET":
            self.checks += 1
            if not self.is_well:
                return await self._whole(writer, b"{}", Behaviour(status=503))
        return await super()._answer(request, reader, writer)
