"""Arrivals become durable: each group of them is noted in the journal, then appended to the spool, then confirmed.

One group at a time, so an offset that the journal has promised is the one that the spool gives. Whatever arrives
meanwhile makes the next group: a busy intake pays for few commits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple, TypeVar

from collector.intake.arrival import REQUEST_MISSING, RESPONSE_MISSING, Arrival
from collector.intake.counts import Counts
from collector.intake.journal import Decision, Journal, Step
from collector.spool import SpoolWriter
from servelens.clock import Clock
from servelens.errors import Backpressure, ServelensError, SpoolFull

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_GROUP: Final = 4_096
_LIMIT: Final = 1_000
_TICK_S: Final = 0.5


class _Written(NamedTuple):
    """What was decided, the keys of records that the spool did not take, and why."""

    decisions: list[Decision]
    lost: set[bytes]
    error: ServelensError | None


class Intake:
    """Gives arrivals to ``spool``, which nobody else appends to. Its methods belong to one event loop.

    A half waits ``join_timeout_s`` seconds for the other one; an event is known again for ``window_s`` seconds.
    ``max_waiting_bytes`` bounds the arrivals that wait for the disk.
    """

    def __init__(
        self,
        journal: Journal,
        spool: SpoolWriter,
        counts: Counts,
        clock: Clock,
        *,
        join_timeout_s: float,
        window_s: float,
        max_waiting_bytes: int = 64 << 20,
    ) -> None:
        self._journal = journal
        self._spool = spool
        self._counts = counts
        self._clock = clock
        self._join_timeout_us = round(join_timeout_s * 1e6)
        self._window_us = round(window_s * 1e6)
        self._max_waiting_bytes = max_waiting_bytes
        self._queue: deque[tuple[Sequence[Arrival], asyncio.Future[list[Step]]]] = deque()
        self._waiting_bytes = 0
        self._wakeup = asyncio.Event()
        self._stopping = False
        self._in_spool: list[bytes] = []  # keys of halves that the journal can forget
        self._refused: list[bytes] = []  # keys that it still has to take back
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="intake-journal")
        self._count_halves()

    async def take(self, arrivals: Sequence[Arrival]) -> list[Step]:
        """Make all of them durable and say, in their order, what became of each.

        Raises Backpressure or Unavailable when they are not all durable: whoever sent them may send them again.
        """
        if not arrivals:
            return []
        if self._stopping:
            raise Backpressure("this collector is stopping.", retry_after_s=5.0)
        size = _size(arrivals)
        if self._waiting_bytes and self._waiting_bytes + size > self._max_waiting_bytes:
            raise Backpressure(f"{self._waiting_bytes} bytes wait for the disk already.", retry_after_s=1.0)
        done: asyncio.Future[list[Step]] = asyncio.get_running_loop().create_future()
        self._queue.append((arrivals, done))
        self._waiting_bytes += size
        self._wakeup.set()
        return await done

    async def run(self) -> None:
        """Work until :meth:`stop` was called and everything taken is settled."""
        loop = asyncio.get_running_loop()
        self._spool.bind(loop)
        due = loop.time()
        try:
            while not (self._stopping and not self._queue):
                try:
                    async with asyncio.timeout(_TICK_S):
                        await self._wakeup.wait()
                except TimeoutError:
                    pass
                self._wakeup.clear()
                while self._queue:
                    await self._settle()
                if loop.time() >= due:
                    due = loop.time() + _TICK_S
                    await self._tick()
        finally:
            self._disk.shutdown()

    def stop(self) -> None:
        """Take nothing more."""
        self._stopping = True
        self._wakeup.set()

    async def _settle(self) -> None:
        group: list[tuple[Sequence[Arrival], asyncio.Future[list[Step]]]] = []
        arrivals: list[Arrival] = []
        while self._queue and (not group or len(arrivals) + len(self._queue[0][0]) <= _GROUP):
            item = self._queue.popleft()
            if item[1].done():  # nobody waits for it any more
                self._waiting_bytes -= _size(item[0])
                continue
            group.append(item)
            arrivals += item[0]
        if not group:
            return
        try:
            plan = partial(self._journal.plan, arrivals, now_us=self._clock.now_us())
            decisions, lost, error = await self._write(plan)
        except ServelensError as failure:
            for _, done in group:
                _fail(done, failure)
        else:
            start = 0
            for part, done in group:
                mine = decisions[start : start + len(part)]
                start += len(part)
                if error is not None and any(decision.key in lost for decision in mine):
                    _fail(done, error)
                elif not done.done():
                    done.set_result([decision.step for decision in mine])
        finally:
            self._waiting_bytes -= _size(arrivals)

    async def _write(self, plan: Callable[..., list[Decision]]) -> _Written:
        """Note in the journal what ``plan`` says, and append it to the spool."""
        await self._repair()
        if (failure := self._spool.failure) is not None:
            raise SpoolFull(failure, retry_after_s=5.0)
        plan = partial(plan, next_offset=self._spool.next_offset, forget=self._in_spool)
        decisions = await self._off_loop(plan)
        self._in_spool = []
        records = [decision for decision in decisions if decision.record is not None]
        taken, error = await self._append(records)
        for decision in taken:
            self._count(decision)
            if decision.has_half:
                self._in_spool.append(decision.key)
        self._count_halves()
        if error is None:
            return _Written(decisions, set(), None)
        self._refused = [decision.key for decision in records[len(taken) :]]
        lost = set(self._refused)
        logger.warning("arrivals not spooled: count=%d reason=%s", len(lost), error)
        await self._repair()
        return _Written(decisions, lost, error)

    async def _append(self, decisions: list[Decision]) -> tuple[list[Decision], ServelensError | None]:
        """Append in order until the spool refuses one; what it took."""
        if not decisions:
            return [], None
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[None] = loop.create_future()
        errors: list[ServelensError | None] = []
        expected = len(decisions)

        def note(error: ServelensError | None) -> None:
            errors.append(error)
            if len(errors) == expected and not settled.done():
                settled.set_result(None)

        refusal: ServelensError | None = None
        for number, decision in enumerate(decisions):
            if decision.record is None:
                continue
            try:
                self._spool.append(decision.record, note)
            except ServelensError as error:
                expected, refusal = number, error
                break
        if len(errors) < expected:
            await settled
        failed = next((place for place, error in enumerate(errors) if error is not None), len(errors))
        if failed < len(errors):
            refusal = errors[failed]
        return decisions[:failed], refusal

    async def _repair(self) -> None:
        """The journal takes back what the spool refused, before anybody else gets those offsets."""
        if self._refused:
            await self._off_loop(partial(self._journal.take_back, self._refused))
            self._refused = []

    async def _tick(self) -> None:
        """Give up halves that have waited long enough, and forget what is old."""
        now_us = self._clock.now_us()
        try:
            while self._journal.waiting and not self._queue:
                before_us = now_us - self._join_timeout_us
                plan = partial(self._journal.give_up, before_us=before_us, now_us=now_us, limit=_LIMIT)
                written = await self._write(plan)
                if written.error is not None or len(written.decisions) < _LIMIT:
                    break
            before_us, forget = now_us - self._window_us, self._in_spool
            await self._off_loop(
                partial(self._journal.tidy, before_us=before_us, limit=10 * _LIMIT, forget=forget)
            )
            self._in_spool = []
        except ServelensError as error:
            logger.warning("what waits was not looked through: %s", error)

    def _count(self, decision: Decision) -> None:
        error_type = None if decision.record is None else decision.record.error_type
        if error_type not in (REQUEST_MISSING, RESPONSE_MISSING):
            error_type = "joined" if decision.step is Step.JOINED else "whole"
        self._counts.records[error_type] += 1

    def _count_halves(self) -> None:
        self._counts.halves_waiting = self._journal.waiting - len(self._in_spool)

    async def _off_loop(self, action: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._disk, action)


def _size(arrivals: Sequence[Arrival]) -> int:
    return sum(len(item.content) for item in arrivals)


def _fail(done: asyncio.Future[list[Step]], error: ServelensError) -> None:
    if not done.done():
        done.set_exception(error)
