"""Takes entries of the dead letter into their tables, once a newer release or a fixed table can take them.

Exactly once, beside a running collector or without one. The collector's own transaction of a worker stands at a later
offset already, so a replay has one of its own (``<worker id>/replay``), and leaves out what the table holds. A collector
that is started again reads what is still in the spool anew, and could then take the same record: so an entry is replayed
only when the collector's transaction in that table is past it, or the spool does not hold it any more. One process at a
time replays; one that was killed between commit and mark finds the row the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, islice
from pathlib import Path
from typing import Final

import msgspec
import polars as pl
import pyarrow as pa

from collector.catalog import Catalog
from collector.dead_letter import DeadLetter, Entry
from collector.feedback_table import PART
from collector.normalize import UNFIT
from collector.record import FEEDBACK, UNROUTED, decode
from collector.routes import rows_of, table_of
from collector.table import Table
from collector.table_batches import batches
from collector.worker_directory import WorkerDirectory
from servelens.errors import Conflict, Missing, Unavailable

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 200
_ATTEMPTS: Final = 3
_UNREADABLE: Final = (msgspec.DecodeError, *UNFIT)


class State(StrEnum):
    """What came of an entry."""

    REPLAYED = "replayed"
    THERE = "already in the table"
    UNREADABLE = "cannot be read"
    IN_SPOOL = "still in the spool"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One entry's: ``detail`` is the table it is in, or why it stays."""

    worker_id: str
    offset: int
    state: State
    detail: str


class Replay:
    """Replays ``dead_letter`` into the tables of ``catalog``; ``spool_root`` holds this machine's spools."""

    def __init__(self, dead_letter: DeadLetter, catalog: Catalog, spool_root: Path) -> None:
        self._dead_letter = dead_letter
        self._catalog = catalog
        self._spool_root = spool_root

    def run(self, *, worker_id: str | None = None, offsets: Collection[int] = ()) -> Iterator[Outcome]:
        """Replay all records, or those of one worker, or some of them; damaged regions hold none and stay.

        Raises :class:`~servelens.errors.Conflict` when another process replays, :class:`~servelens.errors.Missing` when
        no entry is meant, and :class:`~servelens.errors.Unavailable`; what was yielded before is done.
        """
        with self._dead_letter.replaying():
            wanted = [
                entry
                for entry in self._dead_letter.entries()
                if entry.kind == "record"
                and worker_id in (None, entry.worker_id)
                and (not offsets or entry.offset in offsets)
            ]
            if not wanted and (worker_id is not None or offsets):
                raise Missing("the dead letter holds no such record", fix="See 'servelens verify'.")
            for name, entries in groupby(wanted, key=lambda entry: entry.worker_id):
                while some := list(islice(entries, _AT_ONCE)):
                    yield from self._replay(name, some)

    def _replay(self, worker_id: str, entries: list[Entry]) -> Iterator[Outcome]:
        readable: dict[str, tuple[Table, dict[int, pa.Table]]] = {}
        by_offset: dict[int, Entry] = {}
        for entry in entries:
            offset = entry.offset or 0
            try:
                record = decode(self._dead_letter.content(entry))
                row = rows_of(is_feedback=record.api == FEEDBACK)([record], worker_id, [offset])
            except (*_UNREADABLE, Missing) as error:
                yield Outcome(worker_id, offset, State.UNREADABLE, str(error))
                continue
            table = table_of(self._catalog, record)
            readable.setdefault(table.uri, (table, {}))[1][offset] = row
            by_offset[offset] = entry
        for table, found in readable.values():
            for outcome in self._commit(table, worker_id, found):
                if outcome.state in (State.REPLAYED, State.THERE):
                    self._dead_letter.mark_replayed(by_offset[outcome.offset])
                yield outcome

    def _commit(self, table: Table, worker_id: str, found: dict[int, pa.Table]) -> list[Outcome]:
        first_in_spool = self._first_in_spool(worker_id)
        for _ in range(_ATTEMPTS):
            own = f"{worker_id}/replay"
            versions = table.transaction_versions([worker_id, own])
            through, last = versions[worker_id], versions[own]
            waiting = {
                offset
                for offset in found
                if offset > (-1 if through is None else through)
                and first_in_spool is not None
                and offset >= first_in_spool
            }
            there = self._there(table, worker_id, found)
            new = [offset for offset in sorted(found) if offset not in waiting and offset not in there]
            try:
                if new:
                    table.append(
                        pa.concat_tables(found[offset] for offset in new),
                        transactions={own: 1 if last is None else last + 1},
                    )
            except Conflict as error:
                logger.info("replay looks again: table=%s reason=%s", table.uri, error)
                continue
            return [
                Outcome(worker_id, offset, *_outcome(offset, there, waiting, table.uri))
                for offset in sorted(found)
            ]
        raise Unavailable(f"{_ATTEMPTS} commits in a row lost a race", field=table.uri)

    def _there(self, table: Table, worker_id: str, offsets: Collection[int]) -> set[int]:
        """Which rows there are: also among those without an endpoint, where a record went while that was unknown, and
        of feedback without one, among those to which it may have been moved since.
        """
        unrouted = self._catalog.tables(UNROUTED)
        places = {table.uri: table, unrouted.payload.uri: unrouted.payload}
        if table.uri == unrouted.feedback.uri:
            self._catalog.refresh()
            everywhere = (self._catalog.tables(name).feedback for name in self._catalog.endpoints)
            places |= {each.uri: each for each in everywhere}
        elif PART in table.schema.names:
            places[unrouted.feedback.uri] = unrouted.feedback
        there: set[int] = set()
        for each in places.values():
            condition = (pl.col("worker_id") == worker_id) & pl.col("spool_offset").is_in(sorted(offsets))
            for batch in batches(each, ["worker_id", "spool_offset"], rows=200_000, where=condition):
                there.update(batch["spool_offset"].to_list())
        return there

    def _first_in_spool(self, worker_id: str) -> int | None:
        """The first offset that the worker's spool may still hold; ``None`` when there is no such spool here."""
        directory = spool_of(self._spool_root, worker_id)
        if directory is None:
            return None
        first_offsets = directory.first_offsets()
        return first_offsets[0] if first_offsets else None


def spool_of(spool_root: Path, worker_id: str) -> WorkerDirectory | None:
    """The directory of this worker; also found by its own name, the slot."""
    if not spool_root.is_dir():
        return None
    for path in sorted(spool_root.iterdir()):
        directory = WorkerDirectory(path)
        if not path.is_dir():
            continue
        try:
            if worker_id in (directory.identity(), path.name):
                return directory
        except Missing:
            continue
    return None


def _outcome(offset: int, there: set[int], waiting: set[int], uri: str) -> tuple[State, str]:
    if offset in there:
        return State.THERE, uri
    if offset in waiting:
        return State.IN_SPOOL, "a collector that is started again takes it"
    return State.REPLAYED, uri
