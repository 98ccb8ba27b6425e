"""Records of one person that are still on their way: in the spool, or in the dead letter.

Nothing is moved or locked, so the collector goes on meanwhile; what it takes away during the search is in the table
by then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from collector.catalog import EndpointTables
from collector.dead_letter import DeadLetter, Entry
from collector.reader import Position, SpoolReader
from collector.record import FEEDBACK, Record, decode
from collector.segment import Frame
from collector.table import Table
from servelens.errors import Conflict, Missing

logger = logging.getLogger(__name__)

_RECORDS: Final = 10_000
_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Spooled:
    """Up to which offset a worker's spool has records of the person for ``table``."""

    table: Table
    worker_id: str
    offset: int

    def arrived(self) -> bool:
        """Whether the table holds them. Raises :class:`~servelens.errors.Unavailable`."""
        version = self.table.transaction_version(self.worker_id)
        return version is not None and version >= self.offset


def spooled_records(
    root: Path, units: Callable[[str], Collection[str]], tables_of: Callable[[str], EndpointTables]
) -> list[Spooled]:
    """What the spools below ``root`` have of a person, feedback that they gave included, whether it is in its table by now
    or not: the newest segment of a worker stays until there is a newer one.

    ``units`` gives the spellings of the person in an endpoint, ``tables_of`` its tables. Raises
    :class:`~servelens.errors.Unavailable`.
    """
    last: dict[tuple[str, str], Spooled] = {}
    for directory in sorted(path for path in root.glob("*") if path.is_dir()):
        try:
            reader = SpoolReader(directory)
            for frame, record in _records(reader):
                if record.unit is not None and record.unit in units(record.endpoint):
                    tables = tables_of(record.endpoint)
                    table = tables.feedback if record.api == FEEDBACK else tables.payload
                    last[table.uri, reader.worker_id] = Spooled(table, reader.worker_id, frame.offset)
        except (Missing, Conflict):
            continue  # it is just being made, or was wiped
    return list(last.values())


def dead_letters(dead_letter: DeadLetter, units: Collection[str]) -> list[Entry]:
    """The entries of the dead letter whose bytes hold one of ``units``."""
    spellings = [unit.encode() for unit in units]
    found: list[Entry] = []
    for entry in dead_letter.entries():
        try:
            content = dead_letter.content(entry)
        except Missing:
            continue
        if any(spelling in content for spelling in spellings):
            found.append(entry)
    return found


def _records(reader: SpoolReader) -> Iterator[tuple[Frame, Record]]:
    position: Position | None = None
    while True:
        batch = reader.peek(position, max_records=_RECORDS, max_bytes=_BYTES)
        for frame in batch.frames:
            try:
                yield frame, decode(frame.payload)
            except msgspec.MsgspecError:
                continue  # the collector puts it into the dead letter
        if not batch.frames:
            return
        position = batch.position
