"""Spools become rows in the inference and feedback tables: every record once, within seconds, whatever fails in between.

How a record comes to be there exactly once: a commit carries, per worker, the offset up to which the table
then holds that worker's records (an application transaction of the Delta protocol), and what a table holds
already is left out of a commit. A segment is deleted when every record in it is in its table or in the dead
letter; until then the spool holds what the storage does not take, and memory holds at most two batches.

Reading goes on while a batch is being committed: the commit runs on a thread that does not need the
interpreter.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from collector.catalog import Catalog
from collector.dead_letter import DeadLetter
from collector.ingest_status import IngestStatus
from collector.lane import Commit, Lane, commit
from collector.record import UNROUTED
from collector.routes import Routes
from collector.side_lane import SideLane, failure_reason
from collector.spool_root import SpoolRoot
from collector.worker_spool import WorkerSpool
from servelens.clock import Clock, SystemClock
from servelens.errors import Conflict, Missing, ServelensError, Unavailable

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_READ_RECORDS: Final = 5_000
_READ_BYTES: Final = 8 << 20
_POLL_S: Final = 0.05
_LOOK_AROUND_S: Final = 0.5
_STALL_S: Final = 10.0
_RETRY_S: Final = 1.0
_COMMIT_THREADS: Final = 1_024  # started as they are needed: two for each table whose storage hangs


class Collector:
    """The one collector of a spool root: reads every worker's spool under it into the tables of ``catalog``.

    Records of an endpoint that the catalog does not know go to the table of :data:`~collector.record.UNROUTED`; while it
    cannot say, the spool waits. A batch is committed ``commit_interval_s`` after its first record, or at ``max_rows``
    rows or ``max_bytes`` of records. One thread may call its methods; any may read :attr:`status`.
    """

    def __init__(
        self,
        spool_root: Path,
        catalog: Catalog,
        dead_letter: DeadLetter,
        *,
        commit_interval_s: float = 1.0,
        max_rows: int = 20_000,
        max_bytes: int = 12 << 20,
        drain_timeout_s: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        self.status = IngestStatus()
        self._spools = SpoolRoot(spool_root, dead_letter)
        self._commit_interval_s = commit_interval_s
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._drain_timeout_s = drain_timeout_s
        self._clock = clock or SystemClock()
        now = self._clock.monotonic()
        self._main = Lane(set(), now=now)
        self._routes = Routes(catalog, self._main.uris.add)
        for endpoint in (*catalog.endpoints, UNROUTED):
            self._routes.uri(endpoint)
        self._side: dict[str, SideLane] = {}
        self._committed: dict[tuple[str, str], int] = {}
        self._deleted: dict[str, int] = {}
        self._look_around_at = now
        self._main_retry_at = now
        self._idle = False
        self._deletable = False
        self._in_table = 0
        self._last_commit_us: int | None = None
        self._draining = False
        self._wakeup = threading.Event()
        self._pool = ThreadPoolExecutor(_COMMIT_THREADS, thread_name_prefix="commit")

    def run(self, stop: threading.Event) -> None:
        """Collect until ``stop`` is set, then until the spools are empty or ``drain_timeout_s`` has passed.

        Raises :class:`~servelens.errors.Conflict` when another collector works on this spool root and
        :class:`~servelens.errors.Unavailable` when the root cannot be used.
        """
        try:
            while not stop.is_set():
                if not self.step():
                    self._wait()
            if not self.drain():
                logger.warning("stopped before the spools were empty: %s", self.status)
        finally:
            self.close()

    def drain(self) -> bool:
        """Collect until the spools are empty and everything is committed, or ``drain_timeout_s`` has passed.

        Whether they are empty; a halted spool counts as empty.
        """
        self._draining = True
        self._idle = False
        self._look_around_at = now = self._clock.monotonic()
        deadline = now + self._drain_timeout_s
        while not self._drained() and self._clock.monotonic() < deadline:
            if not self.step():
                self._wait()
        self._draining = False
        self._report(self._clock.monotonic())
        return self._drained()

    def step(self) -> bool:
        """One pass over everything that can be done without waiting; whether anything was."""
        self._spools.lock()
        now = self._clock.monotonic()
        if now >= self._look_around_at:
            self._look_around_at = now + _LOOK_AROUND_S
            self._spools.discover()
            self._report(now)
        moved = self._step_main(now)
        for side in list(self._side.values()):
            moved |= self._step_side(side, now)
        if self._deletable:  # after the next commit was begun: it should not wait for this
            self._deletable = False
            self._delete_segments()
        return moved

    def close(self) -> None:
        """Let the spool root go. A commit under way may still come through; it counts, as every one does, once."""
        busy = bool(self._main.jobs) or any(side.lane.jobs or side.lookup for side in self._side.values())
        self._pool.shutdown(wait=not busy, cancel_futures=True)
        self._spools.release()

    def _wait(self) -> None:
        self._wakeup.wait(_POLL_S)
        self._wakeup.clear()

    def _drained(self) -> bool:
        return self._idle and not self._side and self._main.in_flight is None and self._main.batch.empty

    def _step_main(self, now: float) -> bool:
        lane = self._main
        moved = self._settle_main(now)
        if now < self._main_retry_at:
            return moved
        try:
            read, idle = False, True
            if self._full(lane):
                idle = False
                if lane.in_flight is not None:
                    lane.build()
            else:
                for worker in self._spools:
                    if worker.halted is None:
                        found = self._fill(lane, worker, now, _READ_RECORDS, first=True)
                        read |= found is True
                        idle &= found is False
            self._idle = idle
            if lane.in_flight is None and self._due(lane, now, caught_up=not read):
                self._submit_batch(lane, now)
                moved = True
        except Unavailable as error:
            logger.warning("batch put back: %s", error)
            lane.drop_batch(now=now)
            self._idle = False
            self._main_retry_at = now + _RETRY_S
            return moved
        return moved or read

    def _settle_main(self, now: float) -> bool:
        lane = self._main
        if lane.in_flight is None:
            return False
        late = now - lane.submitted > _STALL_S
        for uri, job in list(lane.jobs.items()):
            if job.done():
                error = job.exception()
                if error is None:
                    del lane.jobs[uri]
                    self._note_commit(uri, lane, job.result())
                else:
                    self._split(uri, error, now)
            elif late:
                self._split(uri, TimeoutError("the storage does not answer"), now)
        if lane.jobs:
            return False
        lane.finish_batch()
        self._deletable = True
        return True

    def _split(self, uri: str, error: BaseException, now: float) -> None:
        """Give a table that does not take its commit a lane of its own."""
        main = self._main
        lane = Lane({uri}, now=now)
        lane.positions, lane.through = main.starting_point()
        lane.done = dict(main.done)
        lane.restart_batch(now=now)
        job = main.jobs.get(uri)
        if job is not None and not job.done():
            lane.jobs[uri] = job
        first = main.in_flight or main.batch
        reason = failure_reason(uri, error)
        self._side[uri] = SideLane(uri, lane, reason, now=now, behind_since_us=first.oldest_us)
        main.give_up(uri)

    def _step_side(self, side: SideLane, now: float) -> bool:
        lane = side.lane
        job = lane.jobs.get(side.uri)
        if job is not None:
            if not job.done():
                return False
            del lane.jobs[side.uri]
            error = job.exception()
            if error is not None:
                side.failed(failure_reason(side.uri, error), now=now)
            elif lane.in_flight is None:
                self._in_table += job.result().records
                side.start_over(
                    now=now
                )  # a commit from before the lane was split off has come through after all
            else:
                self._note_commit(side.uri, lane, job.result())
                side.succeeded()
                lane.finish_batch()
                self._deletable = True
            return True
        if now < side.retry_at or not self._look_up(side, now):
            return False
        try:
            read = self._follow(side, now)
            if self._due(lane, now, caught_up=not read):
                self._submit_batch(lane, now)
                if not lane.jobs:
                    lane.finish_batch()
                return True
        except Unavailable as error:
            side.failed(failure_reason(side.uri, error), now=now)
            return False
        if not read and lane.batch.empty and self._caught_up(side):
            self._merge(side)
            return True
        return read

    def _look_up(self, side: SideLane, now: float) -> bool:
        """Ask the table what it holds; whether that is known."""
        if side.known:
            return True
        if side.lookup is None:
            names = [worker.worker_id for worker in self._spools]
            side.lookup = self._submit(partial(self._routes.table(side.uri).transaction_versions, names))
        if not side.lookup.done():
            return False
        lookup, side.lookup = side.lookup, None
        error = lookup.exception()
        if error is not None:
            side.failed(failure_reason(side.uri, error), now=now)
            return False
        for name, version in lookup.result().items():
            if version is not None:
                self._committed[side.uri, name] = version
        side.known = True
        return True

    def _follow(self, side: SideLane, now: float) -> bool:
        """Read on, up to where the main lane is; whether there was anything."""
        lane = side.lane
        if self._full(lane):
            return False
        read = False
        for worker in self._spools:
            name = worker.worker_id
            ahead = self._main.through.get(name, -1) - lane.through.get(name, -1)
            if ahead > 0:
                read |= self._fill(lane, worker, now, min(_READ_RECORDS, ahead), first=False) is True
        return read

    def _caught_up(self, side: SideLane) -> bool:
        return all(
            side.lane.through.get(worker.worker_id, -1) >= self._main.through.get(worker.worker_id, -1)
            for worker in self._spools
        )

    def _merge(self, side: SideLane) -> None:
        """The table has caught up: the main lane feeds it again, from where that reads."""
        logger.info("table caught up: table=%s", side.uri)
        for name, offset in side.lane.through.items():
            known = self._committed.get((side.uri, name), -1)
            self._committed[side.uri, name] = max(known, offset)
        self._main.uris.add(side.uri)
        del self._side[side.uri]

    def _fill(self, lane: Lane, worker: WorkerSpool, now: float, records: int, *, first: bool) -> bool | None:
        """Whether there was anything to read; ``None`` when that cannot be said now."""
        if now < worker.retry_at:
            return None
        if lane.batch.empty:
            lane.batch.opened = now
        try:
            return lane.fill(
                worker,
                self._routes.uri,
                self._committed,
                max_records=records,
                max_bytes=_READ_BYTES,
                first=first,
            )
        except (Conflict, Missing) as error:
            self._spools.forget(worker, error)
        except Unavailable as error:
            logger.warning("spool not read: worker=%s reason=%s", worker.worker_id, error)
            worker.retry_at = now + _RETRY_S
        return None

    def _full(self, lane: Lane) -> bool:
        return lane.batch.rows >= self._max_rows or lane.batch.size >= self._max_bytes

    def _due(self, lane: Lane, now: float, *, caught_up: bool) -> bool:
        if lane.batch.empty:
            return False
        aged = now - lane.batch.opened >= self._commit_interval_s
        return aged or self._full(lane) or (caught_up and self._draining)

    def _submit_batch(self, lane: Lane, now: float) -> None:
        for uri, (data, ends) in lane.close_batch(now=now).items():
            lane.jobs[uri] = self._submit(partial(commit, self._routes.table(uri), data, ends))

    def _submit(self, action: Callable[[], Result]) -> Future[Result]:
        future = self._pool.submit(action)
        future.add_done_callback(lambda _: self._wakeup.set())
        return future

    def _note_commit(self, uri: str, lane: Lane, outcome: Commit) -> None:
        ends = lane.in_flight.ends if lane.in_flight is not None else {}
        for name, offset in {**ends, **outcome.found}.items():
            known = self._committed.get((uri, name), -1)
            self._committed[uri, name] = max(known, offset)
        self._in_table += outcome.records
        self._last_commit_us = self._clock.now_us()

    def _delete_segments(self) -> None:
        lanes = [self._main, *(side.lane for side in self._side.values())]
        for worker in self._spools:
            name = worker.worker_id
            safe = min(lane.done.get(name, -1) for lane in lanes)
            if safe <= self._deleted.get(name, -1):
                continue
            try:
                worker.reader.delete_through(safe)
            except Unavailable as error:
                logger.warning("segments not deleted: worker=%s reason=%s", name, error)
            else:
                self._deleted[name] = safe

    def _report(self, now: float) -> None:
        lanes = [self._main, *(side.lane for side in self._side.values())]
        moments = [batch.oldest_us for lane in lanes for batch in (lane.batch, lane.in_flight) if batch]
        moments += [side.behind_since_us for side in self._side.values()]
        waiting = [moment for moment in moments if moment is not None]
        workers = list(self._spools)
        dropped = backlog = 0
        for worker in workers:
            try:
                dropped += worker.reader.dropped()
                backlog += worker.reader.backlog(self._main.positions.get(worker.worker_id))
            except ServelensError as error:
                logger.debug("spool not measured: worker=%s reason=%s", worker.worker_id, error)
        self.status = IngestStatus(
            workers=len(workers),
            in_table=self._in_table,
            dead_lettered=self._spools.unreadable,
            damaged_regions=self._spools.regions,
            settled=sum(1 + min(lane.done.get(worker.worker_id, -1) for lane in lanes) for worker in workers),
            dropped=dropped,
            backlog_bytes=backlog,
            last_commit_us=self._last_commit_us,
            lag_s=max(0.0, (self._clock.now_us() - min(waiting)) / 1e6) if waiting else 0.0,
            failing={uri: side.reason for uri, side in self._side.items() if side.reason is not None},
            halted={worker.worker_id: worker.halted for worker in workers if worker.halted is not None},
        )
