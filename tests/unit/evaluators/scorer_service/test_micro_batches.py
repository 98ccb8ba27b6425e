"""Texts of several callers are scored together, in order, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from evaluators.scorer_service.micro_batches import MicroBatches
from evaluators.scorer_service.model_thread import ModelThread
from evaluators.scorer_service.service_metrics import ServiceMetrics
from servelens.clock import SystemClock
from servelens.errors import Backpressure
from tests.unit.evaluators.scorer_service.running_scorer import RuleEvaluator

PATIENCE_S = 10.0


@asynccontextmanager
async def running(rule: RuleEvaluator, **options: Any) -> AsyncIterator[MicroBatches]:
    model = ModelThread(rule)
    batches = MicroBatches(model, ServiceMetrics(), SystemClock(), **options)
    computing = asyncio.create_task(batches.run())
    try:
        yield batches
    finally:
        rule.gate.set()
        computing.cancel()
        await asyncio.gather(computing, return_exceptions=True)
        model.close()


async def begun(rule: RuleEvaluator) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not rule.asked:  # noqa: ASYNC110  # another thread counts
            await asyncio.sleep(0.001)


async def test_what_comes_while_the_model_is_busy_is_scored_together() -> None:
    rule = RuleEvaluator()
    rule.gate.clear()
    async with running(rule, max_batch=8) as batches:
        first = asyncio.create_task(batches.score(["first"], PATIENCE_S))
        await begun(rule)
        others = [asyncio.create_task(batches.score([f"a{n}", f"hate {n}"], PATIENCE_S)) for n in range(6)]
        await asyncio.sleep(0)
        assert batches.queued == 12
        rule.gate.set()
        answers = await asyncio.gather(first, *others)
        assert batches.queued == 0
    assert [score.value for score in answers[0]] == [0.1]
    assert [[score.value for score in answer] for answer in answers[1:]] == [[0.1, 0.9]] * 6
    assert rule.batches == [1, 8, 4]
    assert rule.seen == ["first", *(text for n in range(6) for text in (f"a{n}", f"hate {n}"))]


async def test_an_idle_model_waits_for_nobody() -> None:
    rule = RuleEvaluator()
    async with running(rule, max_wait_s=60.0) as batches, asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            await batches.score(["hello"], PATIENCE_S)
    assert rule.batches == [1, 1, 1]


async def test_a_small_batch_waits_for_more_but_not_for_long() -> None:
    rule = RuleEvaluator()
    rule.gate.clear()
    async with running(rule, max_wait_s=0.2) as batches, asyncio.timeout(PATIENCE_S):
        first = asyncio.create_task(batches.score(["first"], PATIENCE_S))
        await begun(rule)
        second = asyncio.create_task(batches.score(["second"], PATIENCE_S))
        await asyncio.sleep(0)
        rule.gate.set()
        await first
        third = asyncio.create_task(batches.score(["third"], PATIENCE_S))
        await asyncio.gather(second, third)
    assert rule.batches == [1, 2]


async def test_a_full_batch_does_not_wait() -> None:
    rule = RuleEvaluator()
    rule.gate.clear()
    async with running(rule, max_wait_s=60.0, max_batch=4) as batches, asyncio.timeout(PATIENCE_S):
        first = asyncio.create_task(batches.score(["first"], PATIENCE_S))
        await begun(rule)
        more = [asyncio.create_task(batches.score([f"text {n}"], PATIENCE_S)) for n in range(3)]
        await asyncio.sleep(0)
        rule.gate.set()
        await first
        more.append(asyncio.create_task(batches.score(["text 3"], PATIENCE_S)))
        await asyncio.gather(*more)
    assert rule.batches == [1, 4]


async def test_more_than_may_wait_is_refused_and_room_is_free_again() -> None:
    rule = RuleEvaluator()
    rule.gate.clear()
    async with running(rule, max_queue=3) as batches:
        first = asyncio.create_task(batches.score(["first"], PATIENCE_S))
        await begun(rule)
        waiting = asyncio.create_task(batches.score(["one", "two"], PATIENCE_S))
        await asyncio.sleep(0)
        with pytest.raises(Backpressure, match="Too many") as refused:
            await batches.score(["three", "four"], PATIENCE_S)
        assert refused.value.status == 503
        with pytest.raises(Backpressure, match="in time"):
            await batches.score(["late"], 0.01)
        assert batches.queued == 2
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert batches.queued == 0
        rule.gate.set()
        await first
        await batches.score(["five"], PATIENCE_S)
    assert rule.seen == ["first", "five"]


async def test_a_model_that_hangs_is_noticed() -> None:
    rule = RuleEvaluator()
    rule.gate.clear()
    async with running(rule, stuck_s=0.05) as batches:
        with pytest.raises(Backpressure, match="in time"):
            await batches.score(["first"], 0.1)
        assert batches.is_stuck
        with pytest.raises(Backpressure, match="does not answer"):
            await batches.score(["second"], PATIENCE_S)
        rule.gate.set()
        async with asyncio.timeout(PATIENCE_S):
            while batches.is_stuck:  # noqa: ASYNC110  # another thread ends it
                await asyncio.sleep(0.005)
        assert len(await batches.score(["third"], PATIENCE_S)) == 1


async def test_a_model_that_raises_costs_its_own_batch() -> None:
    rule = RuleEvaluator()
    async with running(rule) as batches:
        (lost,) = await batches.score(["explode"], PATIENCE_S)
        (fine,) = await batches.score(["fine"], PATIENCE_S)
    assert lost.unscored_reason == "model_error"
    assert fine.value == 0.1
