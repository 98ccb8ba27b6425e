"""A lane: one way through all spools for one or more tables, with the batch that is being gathered.

Normally one lane feeds every table. A table whose storage fails gets a lane of its own, which goes back to
the last record that its table has and follows at its own pace, so that the others go on and nobody keeps its
backlog in memory. Invariant: ``done[worker]`` is an offset up to which every record of the lane's tables is
in its table or in the dead letter; a record is in at most one lane.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from collector.feedback_table import PART
from collector.normalize import UNFIT
from collector.reader import Position
from collector.record import FEEDBACK, Record
from collector.routes import BuildRows, rows_of
from collector.table import Table
from collector.worker_spool import Reading, WorkerSpool

_CHUNK_ROWS = 5_000
_CHUNK_BYTES = 8 << 20


class Route(Protocol):
    """Gives the table's address of an endpoint and a kind of records."""

    def __call__(self, endpoint: str, *, is_feedback: bool = False) -> str: ...


@dataclass(slots=True)
class _Waiting:
    """Records of one worker for one table that are not rows yet, and what makes rows of them."""

    worker: WorkerSpool
    build: BuildRows
    records: list[Record] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Batch:
    """What has been gathered since ``opened`` (monotonic seconds), and where the reading stood before it.

    ``ends`` are the last offsets read per worker; ``reached`` also counts offsets behind them that no record
    has. ``size`` is in bytes of records, of which ``loose`` are not rows yet.
    """

    opened: float
    start: dict[str, Position | None]
    start_through: dict[str, int]
    ends: dict[str, int] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    waiting: dict[tuple[str, str], _Waiting] = field(default_factory=dict)
    parts: dict[str, list[pa.Table]] = field(default_factory=dict)
    rows: int = 0
    size: int = 0
    loose: int = 0
    oldest_us: int | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was read."""
        return not self.reached


class Lane:
    """Reading positions, the batch under way, the commits under way."""

    def __init__(self, uris: set[str], *, now: float) -> None:
        self.uris = uris
        self.positions: dict[str, Position | None] = {}
        self.through: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.jobs: dict[str, Future[Commit]] = {}
        self.in_flight: Batch | None = None
        self.submitted = 0.0
        self.batch = self._new_batch(now)

    def starting_point(self) -> tuple[dict[str, Position | None], dict[str, int]]:
        """Positions, and offsets before them, from which everything not yet in a table can be read again."""
        first = self.in_flight or self.batch
        return dict(first.start), dict(first.start_through)

    def fill(
        self,
        worker: WorkerSpool,
        route: Route,
        committed: Mapping[tuple[str, str], int],
        *,
        max_records: int,
        max_bytes: int,
        first: bool,
    ) -> bool:
        """Read on in one worker's spool; whether there was anything. Raises what :meth:`WorkerSpool.read` raises."""
        name = worker.worker_id
        reading = worker.read(
            self.positions.get(name), max_records=max_records, max_bytes=max_bytes, first=first
        )
        if reading is None:
            return False
        if reading.offsets:
            self._sort(worker, reading, route, committed)
        self.positions[name] = reading.position
        self.through[name] = self.batch.reached[name] = reading.position.next_offset - 1
        if reading.last_offset is not None:
            self.batch.ends[name] = reading.last_offset
        if self.batch.loose >= _CHUNK_BYTES:
            self.build()
        else:
            for (uri, _), waiting in self.batch.waiting.items():
                if len(waiting.records) >= _CHUNK_ROWS:
                    self._build(uri, waiting)
        return True

    def build(self) -> None:
        """Make rows of all that was read: a full batch that waits for its turn has no better time for it.

        Raises what :meth:`close_batch` raises.
        """
        for (uri, _), waiting in self.batch.waiting.items():
            self._build(uri, waiting)
        self.batch.loose = 0

    def _sort(
        self,
        worker: WorkerSpool,
        reading: Reading,
        route: Route,
        committed: Mapping[tuple[str, str], int],
    ) -> None:
        # All routes first: one that is not to be had now must not leave half of a reading in the batch.
        records = reading.records
        routes = {(name, False): route(name) for name in {record.endpoint for record in records}}
        for name in {record.endpoint for record in records if record.api == FEEDBACK}:
            routes[name, True] = route(name, is_feedback=True)
        batch, name = self.batch, worker.worker_id
        of_payload: dict[str, tuple[int, _Waiting] | None] = {}
        of_feedback: dict[str, tuple[int, _Waiting] | None] = {}
        taken = 0
        for record, offset in zip(records, reading.offsets, strict=True):
            endpoint = record.endpoint
            targets = of_payload if record.api != FEEDBACK else of_feedback
            try:
                target = targets[endpoint]
            except KeyError:
                is_feedback = targets is of_feedback
                uri = routes[endpoint, is_feedback]
                target = targets[endpoint] = (
                    (
                        committed.get((uri, name), -1),
                        batch.waiting.setdefault(
                            (uri, name), _Waiting(worker, rows_of(is_feedback=is_feedback))
                        ),
                    )
                    if uri in self.uris
                    else None
                )
            if target is None or offset <= target[0]:
                continue
            target[1].records.append(record)
            target[1].offsets.append(offset)
            taken += 1
            answered_us = record.arrived_us or record.request_time_us + record.duration_us
            if batch.oldest_us is None or answered_us < batch.oldest_us:
                batch.oldest_us = answered_us
        batch.rows += taken
        if taken:
            batch.size += reading.size
            batch.loose += reading.size

    def _build(self, uri: str, waiting: _Waiting) -> None:
        """Turn waiting records into rows, all or none: they take a third of the memory then."""
        if not waiting.records:
            return
        parts = _rows_that_fit(waiting, waiting.records, waiting.offsets)
        self.batch.parts.setdefault(uri, []).extend(parts)
        waiting.records.clear()
        waiting.offsets.clear()

    def close_batch(self, *, now: float) -> dict[str, tuple[pa.Table, dict[str, int]]]:
        """Put the batch in flight: per table the rows to commit and the last offset of each worker among
        them.

        Raises :class:`~servelens.errors.Unavailable` when the dead letter cannot take a record that fits no
        row.
        """
        batch = self.batch
        self.build()
        commits: dict[str, tuple[pa.Table, dict[str, int]]] = {}
        for uri, parts in batch.parts.items():
            if parts:
                data = pa.concat_tables(parts)
                names = [str(name) for name in pc.unique(data.column("worker_id")).to_pylist()]
                commits[uri] = (data, {name: batch.ends[name] for name in names})
        batch.parts.clear()
        batch.waiting.clear()
        self.in_flight, self.submitted = batch, now
        self.batch = self._new_batch(now)
        return commits

    def finish_batch(self) -> None:
        """All that was in flight is in its table."""
        if self.in_flight is not None:
            self.done.update(self.in_flight.reached)
            self.in_flight = None

    def restart_batch(self, *, now: float) -> None:
        """Begin a batch where the reading stands now."""
        self.batch = self._new_batch(now)

    def drop_batch(self, *, now: float) -> None:
        """Forget what is being gathered; it is read again."""
        self.positions, self.through = dict(self.batch.start), dict(self.batch.start_through)
        self.batch = self._new_batch(now)

    def rewind(self, *, now: float) -> None:
        """Forget what is being gathered and what is in flight; both are read again."""
        self.positions, self.through = self.starting_point()
        self.in_flight = None
        self.batch = self._new_batch(now)

    def give_up(self, uri: str) -> None:
        """The table is no longer this lane's: forget its rows."""
        self.uris.discard(uri)
        self.jobs.pop(uri, None)
        self.batch.parts.pop(uri, None)
        for key in [key for key in self.batch.waiting if key[0] == uri]:
            del self.batch.waiting[key]

    def _new_batch(self, now: float) -> Batch:
        return Batch(now, dict(self.positions), dict(self.through))


def _rows_that_fit(waiting: _Waiting, records: list[Record], offsets: list[int]) -> list[pa.Table]:
    """The rows of all records but those that fit no row: these are found by halving, and refused."""
    try:
        return [waiting.build(records, waiting.worker.worker_id, offsets)]
    except UNFIT as error:
        if len(records) == 1:
            waiting.worker.refuse(records[0], offsets[0], str(error))
            return []
    half = len(records) // 2
    return [
        *_rows_that_fit(waiting, records[:half], offsets[:half]),
        *_rows_that_fit(waiting, records[half:], offsets[half:]),
    ]


@dataclass(frozen=True, slots=True)
class Commit:
    """How many records a commit wrote, and which offsets it ``found`` the table to hold already."""

    records: int
    found: Mapping[str, int] = field(default_factory=dict)


def commit(table: Table, data: pa.Table, ends: Mapping[str, int]) -> Commit:
    """Commit ``data`` with the workers' last offsets, exactly once.

    What the table has already is left out: after a restart the newest segment is read again, and a commit whose
    outcome nobody saw may have come through. Raises :class:`~servelens.errors.Conflict` when another process committed
    records of these workers meanwhile, and :class:`~servelens.errors.Unavailable`.
    """
    versions = table.transaction_versions(list(ends))
    found = {name: version for name, version in versions.items() if version is not None}
    for name, version in found.items():
        of_worker = pc.equal(data.column("worker_id"), pa.scalar(name))
        known = pc.less_equal(data.column("spool_offset"), pa.scalar(version, pa.int64()))
        in_table = pc.and_(of_worker, known)
        if pc.any(in_table).as_py():  # seldom, and a filter copies all the texts
            data = data.filter(pc.invert(in_table))
    new = {name: end for name, end in ends.items() if end > found.get(name, -1)}
    if data.num_rows:
        table.append(data, transactions=new)
    return Commit(_records_in(data), found)


def _records_in(data: pa.Table) -> int:
    if PART not in data.schema.names:
        return data.num_rows
    first = pc.equal(data.column(PART), pa.scalar(0, pa.int32()))
    return int(pc.sum(first.cast(pa.int64())).as_py() or 0)
