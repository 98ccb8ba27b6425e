"""Does every record that a proxy worker accepted lie somewhere? What ``servelens verify`` asks.

The invariant of the design, for each worker: records accepted = records in the tables + records counted as dropped
(+ those still in the spool, in the dead letter, lost to named damage, or removed on purpose). Offsets are dense from 0,
so a record that is nowhere leaves a gap.

Everything may be running meanwhile. Records move from the spool to the tables or the dead letter, and rows leave a
table in a commit that counts them: looking at these places, and at the counts last, each once, misses none that moved.
Nothing is written, moved or kept from moving.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from collector.catalog import Catalog, EndpointTables
from collector.dead_letter import DeadLetter
from collector.departed_rows import departed_rows
from collector.feedback_table import PART
from collector.offset_set import CHUNK, OffsetSet, ranges, universe
from collector.record import UNROUTED
from collector.repeated_ids import repeated_ids
from collector.spool_look import DamagedRegion, SpoolLook, look_at_spools
from collector.table import Table
from collector.table_batches import batches

_BATCH_ROWS: Final = 200_000
MAX_GAPS: Final = 20
"""So many gaps of a worker are named; all are counted."""


@dataclass(slots=True)
class WorkerBooks:
    """One worker's books. Counts are of records.

    ``accepted`` = ``in_table`` + ``in_spool`` + ``in_dead_letter`` + ``damaged`` + ``removed`` + ``missing`` +
    ``dropped``. ``damaged`` records are lost in regions that are named. ``directory`` is ``None`` when the worker is
    known from elsewhere only: its spool was on another machine or is gone, so that ``accepted`` is a lower bound, and
    what is ``missing`` may be in that spool. ``duplicates`` counts rows that repeat an offset.
    """

    worker_id: str
    directory: str | None = None
    writer_alive: bool = False
    accepted: int = 0
    in_table: int = 0
    in_spool: int = 0
    in_dead_letter: int = 0
    damaged: int = 0
    removed: int = 0
    missing: int = 0
    dropped: int = 0
    dropped_by_reason: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)

    @property
    def adds_up(self) -> bool:
        """Whether no record is missing and none is there twice."""
        return not self.duplicates and (not self.missing or self.directory is None)


@dataclass(slots=True)
class Books:
    """The books of all workers, what is damaged, and what could not be looked at.

    ``gaps`` of a worker are ``[first offset, last offset]``, among which are also the offsets of rows that were removed;
    ``duplicate_ids`` are request ids with more than one row.
    """

    workers: list[WorkerBooks] = field(default_factory=list)
    regions: list[DamagedRegion] = field(default_factory=list)
    dead_records: int = 0
    replayed_records: int = 0
    rows: int = 0
    feedback_rows: int = 0
    rows_without_origin: int = 0
    duplicate_ids: list[str] = field(default_factory=list)
    duplicate_id_rows: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def adds_up(self) -> bool:
        """Whether everything was looked at, nothing is missing, and nothing is there twice."""
        return (
            not self.problems
            and not self.duplicate_id_rows
            and all(worker.adds_up for worker in self.workers)
        )


class Audit:
    """Compares the spools under ``spool_root``, the dead letter and all payload and feedback tables of ``catalog``."""

    def __init__(self, spool_root: Path, catalog: Catalog, dead_letter: DeadLetter) -> None:
        self._spool_root = spool_root
        self._catalog = catalog
        self._dead_letter = dead_letter

    def run(self) -> Books:
        """Look once. Memory stays within some hundred megabytes, whatever the tables hold.

        Raises :class:`~servelens.errors.Unavailable` when a table or the dead letter cannot be read.
        """
        books = Books()
        looks = {look.worker_id: look for look in look_at_spools(self._spool_root, books.problems)}
        dead = self._dead_letters(books)
        endpoints = self._endpoints()
        tables = [each.payload for each in endpoints]
        rows = _Rows(books)
        for table in tables:
            rows.add(table)
        # Feedback moves from the first of them to the others.
        for number, each in enumerate(endpoints):
            rows.add_feedback(each.feedback, may_move=number == 0)
        worker_ids = sorted({*looks, *rows.offsets, *dead.workers})
        every = [table for each in endpoints for table in (each.payload, each.feedback)]
        departed = [departed_rows(table, worker_ids) for table in every]
        for worker_id in worker_ids:
            removed = sum(each[worker_id] for each in departed)
            worker = _Worker(looks.get(worker_id), rows.offsets.get(worker_id), dead, worker_id, removed)
            books.workers.append(worker.books(rows.repeated.get(worker_id, 0)))
            books.regions += worker.regions_to_name()
        books.regions.sort(key=lambda region: (region.worker_id, region.segment, region.start))
        books.duplicate_ids, books.duplicate_id_rows = repeated_ids(tables, books.rows)
        return books

    def _endpoints(self) -> list[EndpointTables]:
        self._catalog.refresh()
        return [self._catalog.tables(name) for name in (UNROUTED, *self._catalog.endpoints)]

    def _dead_letters(self, books: Books) -> _Dead:
        dead = _Dead()
        for entry in self._dead_letter.entries():
            dead.workers.add(entry.worker_id)
            if entry.offset is not None:
                dead.records.setdefault(entry.worker_id, OffsetSet()).add_range(
                    entry.offset, entry.offset + 1
                )
                books.dead_records += 1
            elif entry.segment is not None:
                dead.regions.setdefault(entry.worker_id, []).append(
                    DamagedRegion(
                        entry.worker_id,
                        entry.segment,
                        entry.start or 0,
                        entry.end or 0,
                        entry.reason,
                        entry.first_missing or 0,
                        entry.missing or 0,
                        in_dead_letter=True,
                    )
                )
        books.replayed_records = self._dead_letter.replayed()
        return dead


@dataclass(slots=True)
class _Dead:
    workers: set[str] = field(default_factory=set)
    records: dict[str, OffsetSet] = field(default_factory=dict)
    regions: dict[str, list[DamagedRegion]] = field(default_factory=dict)


class _Rows:
    """Which offsets the tables hold, by worker, over all tables."""

    def __init__(self, books: Books) -> None:
        self.offsets: dict[str, OffsetSet] = {}
        self.repeated: dict[str, int] = {}
        self._books = books
        self._feedback: dict[tuple[str, int, bool], OffsetSet] = {}

    def add(self, table: Table) -> None:
        for batch in batches(table, ["worker_id", "spool_offset"], rows=_BATCH_ROWS):
            self._books.rows += batch.height
            known = batch.drop_nulls()
            self._books.rows_without_origin += batch.height - known.height
            for (worker_id,), part in known.group_by("worker_id"):
                name = str(worker_id)
                found = self.offsets.setdefault(name, OffsetSet()).add_all(part["spool_offset"])
                self.repeated[name] = self.repeated.get(name, 0) + found

    def add_feedback(self, table: Table, *, may_move: bool) -> None:
        """A record has a row for each part, and is in two tables for a moment when it moves."""
        for batch in batches(table, ["worker_id", "spool_offset", PART], rows=_BATCH_ROWS):
            self._books.feedback_rows += batch.height
            known = batch.drop_nulls()
            for (worker_id, part), some in known.group_by("worker_id", PART):
                name, number = str(worker_id), int(part)
                mine = self._feedback.setdefault((name, number, may_move), OffsetSet())
                self.repeated[name] = self.repeated.get(name, 0) + mine.add_all(some["spool_offset"])
                if number == 0:
                    self.offsets.setdefault(name, OffsetSet()).add_all(some["spool_offset"])


class _Worker:
    """What is known of one worker, and the sums."""

    def __init__(
        self, look: SpoolLook | None, rows: OffsetSet | None, dead: _Dead, worker_id: str, removed: int
    ) -> None:
        self._worker_id = worker_id
        self._look = look
        self._rows = rows or OffsetSet()
        self._dead = dead.records.get(worker_id) or OffsetSet()
        self._regions = [*dead.regions.get(worker_id, []), *(look.regions if look else [])]
        self._spool = look.offsets if look else OffsetSet()
        self._lost, self._named = OffsetSet(), OffsetSet()
        for region in self._regions:
            for offsets in (self._lost, self._named) if region.in_dead_letter else (self._lost,):
                offsets.add_range(region.first_missing, region.first_missing + region.missing)
        self._removed = removed

    def books(self, duplicates: int) -> WorkerBooks:
        look = self._look
        books = WorkerBooks(self._worker_id, duplicates=duplicates)
        if look is not None:
            books.directory, books.writer_alive = str(look.directory), look.writer_alive
            books.dropped, books.dropped_by_reason = look.dropped, dict(look.dropped_by_reason)
        end = self._end()
        for chunk in range(-(-end // CHUNK)):
            left = universe(chunk, end)
            for name, offsets in (
                ("in_table", self._rows),
                ("in_dead_letter", self._dead),
                ("in_spool", self._spool),
                ("damaged", self._lost),
            ):
                found = left & offsets.bits(chunk)
                setattr(books, name, getattr(books, name) + found.bit_count())
                left ^= found
            books.missing += left.bit_count()
            if left and len(books.gaps) < MAX_GAPS:
                _extend(books.gaps, ranges(left, chunk))
        books.removed = min(books.missing, self._removed)
        books.missing -= books.removed
        # A row may leave its table while the segment that it came from is still there.
        in_spool_too = min(books.in_spool, self._removed - books.removed)
        books.removed += in_spool_too
        books.in_spool -= in_spool_too
        if not books.missing:
            books.gaps.clear()
        books.accepted = end + books.dropped
        return books

    def regions_to_name(self) -> Iterator[DamagedRegion]:
        """The damaged regions, but for those that the dead letter has named too, and what only seemed damaged because the
        collector was just deleting a segment.
        """
        named = {(region.segment, region.start) for region in self._regions if region.in_dead_letter}
        for region in self._regions:
            if region.in_dead_letter or (
                (region.segment, region.start) not in named
                and (not region.missing or self._lost_something(region))
            ):
                yield region

    def _lost_something(self, region: DamagedRegion) -> bool:
        stop = region.first_missing + region.missing
        for chunk in range(region.first_missing // CHUNK, -(-stop // CHUNK)):
            within = universe(chunk, stop) & ~universe(chunk, region.first_missing)
            known = self._rows.bits(chunk) | self._dead.bits(chunk) | self._named.bits(chunk)
            if within & ~known:
                return True
        return False

    def _end(self) -> int:
        """The offset behind the last one that counts: what came since the spool was looked at does not."""
        return self._look.next_offset if self._look else max(self._rows.end, self._dead.end)


def _extend(gaps: list[tuple[int, int]], more: Iterator[tuple[int, int]]) -> None:
    for start, stop in more:
        if gaps and gaps[-1][1] == start - 1:
            gaps[-1] = (gaps[-1][0], stop - 1)
        elif len(gaps) < MAX_GAPS:
            gaps.append((start, stop - 1))
        else:
            return
