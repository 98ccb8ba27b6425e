"""What has arrived and what still waits for its other half, on disk: a SQLite file that one process writes.

Invariant: an event has an ``offset`` below the spool's next one exactly when its record is in the spool. For that, the
offset is written here *before* the record is appended there; what a crash leaves in between, an offset that the
spool never reached, is taken back by :meth:`Journal.open`. So a delivery that was not confirmed counts as not made, and
one that was is known when it comes again, for ``window_s`` seconds.

Write-ahead logging with ``synchronous=NORMAL`` (https://sqlite.org/pragma.html#pragma_synchronous): a commit
survives the death of the process, as a record in the spool does.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from collector.intake.arrival import Arrival, Kind, alone, joined
from collector.record import Record, decode
from servelens.errors import Unavailable

_FORMAT: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spool (worker_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    key BLOB PRIMARY KEY, arrived_us INTEGER NOT NULL, parts INTEGER NOT NULL, "offset" INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_by_time ON events (arrived_us);
CREATE TABLE IF NOT EXISTS halves (
    key BLOB PRIMARY KEY, arrived_us INTEGER NOT NULL, kind INTEGER NOT NULL, record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS halves_by_time ON halves (arrived_us);
"""
_SETTLED_BEFORE: Final = -1  # an offset in a spool directory that there was before this one


class Step(StrEnum):
    """What becomes of an arrival."""

    SPOOL = "spool"
    """Its record goes to the spool."""
    JOINED = "joined"
    """The same, made of both halves."""
    LATE = "late"
    """The same, alone, since its other half had been given up."""
    ALONE = "alone"
    """A half that has waited long enough goes to the spool."""
    WAITS = "waits"
    """It waits for its other half."""
    DUPLICATE = "duplicate"
    """It has been here before."""


class Decision(NamedTuple):
    """``record`` is there when it goes to the spool; ``half``: whether a stored half can be forgotten then."""

    key: bytes
    step: Step
    record: Record | None = None
    has_half: bool = False


class Journal:
    """Made by :meth:`open`. One thread at a time may call. Methods raise :class:`~servelens.errors.Unavailable` when the
    disk refuses, and have then changed nothing.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self.waiting = int(self._scalar("SELECT count(*) FROM halves"))
        """Halves that wait for their other half."""

    @classmethod
    def open(cls, path: Path, *, worker_id: str, next_offset: int) -> Journal:
        """The journal in ``path``, agreeing with the spool of ``worker_id`` whose next record gets ``next_offset``.

        The folder is made, for its owner's eyes: it will hold prompts.
        """
        connection = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-32768"):
                connection.execute(f"PRAGMA {pragma}")
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, _FORMAT):
                raise Unavailable(
                    f"{path} was written by a newer release (format {found})",
                    fix="Use that release, or a newer one.",
                )
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version={_FORMAT}")
            journal = cls(connection, path)
            journal._agree(worker_id, next_offset)
        except (OSError, sqlite3.Error, Unavailable) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, Unavailable):
                raise
            raise Unavailable(
                f"the journal of arrivals {path} cannot be used: {error}",
                fix="Check its disk and its permissions. If it is damaged, move it away: what waits in it is then lost.",
            ) from error
        return journal

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    def plan(
        self, arrivals: Sequence[Arrival], *, now_us: int, next_offset: int, forget: Iterable[bytes] = ()
    ) -> list[Decision]:
        """Note the arrivals and say, in their order, what becomes of each: the records go to the spool in the order of
        the decisions, the first to ``next_offset``. ``forget``: keys of halves whose records are in the spool by now.
        """
        decisions: list[Decision] = []
        with self._transaction():
            self._forget(forget)
            for item in arrivals:
                decision = self._decide(item, now_us, next_offset)
                next_offset += decision.record is not None
                decisions.append(decision)
        self.waiting += sum(decision.step is Step.WAITS for decision in decisions)
        return decisions

    def give_up(
        self, *, before_us: int, now_us: int, limit: int, next_offset: int, forget: Iterable[bytes] = ()
    ) -> list[Decision]:
        """Up to ``limit`` halves that arrived before then, as they go to the spool; ``plan`` explains the rest."""
        decisions = []
        with self._transaction():
            self._forget(forget)
            rows = self._connection.execute(
                "SELECT key, kind, record FROM halves WHERE arrived_us < ? ORDER BY arrived_us LIMIT ?",
                (before_us, limit),
            ).fetchall()
            for key, kind, content in rows:
                self._connection.execute(
                    'UPDATE events SET arrived_us = ?, "offset" = ? WHERE key = ?', (now_us, next_offset, key)
                )
                decisions.append(Decision(key, Step.ALONE, alone(Kind(kind), decode(content), now_us), True))
                next_offset += 1
        return decisions

    def take_back(self, keys: Iterable[bytes]) -> None:
        """The spool did not take the records of ``keys``: halves wait again, the rest has never been here."""
        with self._transaction():
            for key in keys:
                self._take_back("key = ?", key)

    def tidy(self, *, before_us: int, limit: int, forget: Iterable[bytes] = ()) -> int:
        """Forget up to ``limit`` events that arrived before then and are in the spool; how many those were."""
        with self._transaction():
            self._forget(forget)
            return self._connection.execute(
                "DELETE FROM events WHERE key IN (SELECT key FROM events WHERE arrived_us < ? AND "
                '"offset" IS NOT NULL ORDER BY arrived_us LIMIT ?)',
                (before_us, limit),
            ).rowcount

    def _decide(self, item: Arrival, now_us: int, offset: int) -> Decision:
        key, kind, record, content = item
        execute = self._connection.execute
        row = execute('SELECT parts, "offset" FROM events WHERE key = ?', (key,)).fetchone()
        if row is None:
            is_whole = kind is Kind.WHOLE
            execute(
                "INSERT INTO events VALUES (?, ?, ?, ?)",
                (key, now_us, int(kind), offset if is_whole else None),
            )
            if is_whole:
                return Decision(key, Step.SPOOL, record)
            execute("INSERT INTO halves VALUES (?, ?, ?, ?)", (key, now_us, int(kind), content))
            return Decision(key, Step.WAITS)
        parts, settled = row
        if parts & kind:
            return Decision(key, Step.DUPLICATE)
        execute(
            'UPDATE events SET arrived_us = ?, parts = ?, "offset" = ? WHERE key = ?',
            (now_us, parts | kind, offset, key),
        )
        if settled is not None:
            return Decision(key, Step.LATE, alone(kind, record, now_us))
        (other,) = execute("SELECT record FROM halves WHERE key = ?", (key,)).fetchone()
        halves = (decode(other), record) if kind is Kind.RESPONSE else (record, decode(other))
        return Decision(key, Step.JOINED, joined(*halves), True)

    def _agree(self, worker_id: str, next_offset: int) -> None:
        """Take back what the spool never got; offsets of another spool directory say nothing about this one."""
        with self._transaction():
            row = self._connection.execute("SELECT worker_id FROM spool").fetchone()
            if row is not None and row[0] == worker_id:
                self._take_back('"offset" >= ?', next_offset)
            else:
                self._connection.execute("DELETE FROM spool")
                self._connection.execute("INSERT INTO spool VALUES (?)", (worker_id,))
                self._connection.execute(
                    'UPDATE events SET "offset" = ? WHERE "offset" IS NOT NULL', (_SETTLED_BEFORE,)
                )
            self._connection.execute(
                'DELETE FROM halves WHERE key IN (SELECT key FROM events WHERE "offset" IS NOT NULL)'
            )
        self.waiting = int(self._scalar("SELECT count(*) FROM halves"))

    def _take_back(self, where: str, value: object) -> None:
        self._connection.execute(
            'UPDATE events SET "offset" = NULL, parts = (SELECT kind FROM halves WHERE halves.key = events.key) '
            f"WHERE {where} AND key IN (SELECT key FROM halves)",
            (value,),
        )
        self._connection.execute(f'DELETE FROM events WHERE {where} AND "offset" IS NOT NULL', (value,))

    def _forget(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self.waiting -= self._connection.execute("DELETE FROM halves WHERE key = ?", (key,)).rowcount

    def _scalar(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        waiting, is_done = self.waiting, False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
            is_done = True
        except sqlite3.Error as error:
            raise Unavailable(f"the journal of arrivals {self._path} cannot be written: {error}") from error
        finally:
            if not is_done:
                self.waiting = waiting
                if self._connection.in_transaction:
                    self._connection.rollback()
