"""Selection: what the rules of an endpoint find becomes cases.

Invariant: everything that a source's table gets is looked at, and no record counts twice, also across crashes. Each table
is followed by version, and the version reached is stored in the same SQL transaction as the last of its cases; what was
stored before a crash is recognised when the same commits are read again (:mod:`.cursor`). A source whose table fails does
not hold up the others.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from relabel.selection.batch import BatchWriter, Step
from relabel.selection.chooser import Chooser
from relabel.selection.cursor import Cursor, move_cursor, read_cursor
from relabel.selection.draws import CONTROL, is_drawn
from relabel.selection.pending import arrived, as_matches, forget_pending, looked_until, read_pending
from relabel.selection.recent_vectors import prune_vectors
from relabel.selection.rule import CaseRule, RandomRule, Rule, check_names
from relabel.selection.rule_days import Tally
from relabel.selection.sources.source import ID, ROWS_PER_READ, Source, collected
from relabel.selection.sources.sources import sources_of
from relabel.selection.suppression import Suppression
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Missing, ServelensError

__all__ = ["Rule", "Selector"]

logger = logging.getLogger(__name__)

_PENDING: Final = "pending"


class Selector:
    """Turns what ``rules`` find in the tables of ``endpoint`` into cases.

    A rule applies to what is written after the run that first knew it; rules about single scores, in the first run of the
    endpoint, to all scores. Raises :class:`~servelens.errors.Invalid` when two rules have one name.
    """

    def __init__(
        self,
        tables: EndpointTables,
        endpoint: str,
        rules: Sequence[CaseRule],
        database: Database,
        clock: Clock,
        *,
        suppression: Suppression | None = None,
    ) -> None:
        check_names(tuple(rules))
        self._tables = tables
        self._endpoint = endpoint
        self._rules = tuple(rules)
        self._sources = sources_of(tables, self._rules)
        self._database = database
        self._clock = clock
        self._suppression = suppression or Suppression()
        self._control = max((rule.fraction for rule in rules if isinstance(rule, RandomRule)), default=0.0)

    def run(self) -> int:
        """Look at all that is new since the last run; the number of new cases.

        Raises :class:`~servelens.errors.Conflict` when another selector of this endpoint runs at the same
        time (its work stands, and the next run goes on from there), and
        :class:`~servelens.errors.Unavailable` when a table or the database fails; other sources have been followed then.
        """
        chooser = Chooser(
            self._database, self._endpoint, self._tables.embeddings, self._suppression, self._is_control
        )
        writer = BatchWriter(self._tables, self._endpoint, self._rules, self._database, self._clock, chooser)
        steps: list[Callable[[], int]] = [partial(self._settle, writer)]
        steps += [partial(self._follow, source, writer) for source in self._sources]
        new, failures = 0, []
        for step in steps:
            try:
                new += step()
            except ServelensError as error:
                failures.append(error)
        if new:
            before = self._clock.now() - timedelta(days=self._suppression.days)
            prune_vectors(self._database, self._endpoint, before)
        for other in failures[1:]:
            logger.error("selection failed: endpoint=%s error=%s", self._endpoint, other)
        if failures:
            raise failures[0]
        return new

    def _is_control(self, request_id: str) -> bool:
        return self._control > 0.0 and is_drawn(request_id, self._control, CONTROL)

    def _follow(self, source: Source, writer: BatchWriter) -> int:
        new = 0
        names = frozenset(rule.name for rule in source.numbered.values())
        while True:
            cursor = self._cursor(source.name)
            newest = source.table.version()
            if _begins_now(source, cursor, names):
                self._begin(source, cursor, newest, names)
                return new
            since = None if cursor is None else cursor.version
            if newest is not None and since is not None and newest < since:
                logger.warning(
                    "a table was made anew: endpoint=%s source=%s version=%d",
                    self._endpoint,
                    source.name,
                    newest,
                )
                since = None
            if newest is None or newest == since:
                return new
            known = Cursor(None) if cursor is None else cursor
            resumed = known.reaching if since == known.version else None
            rows, reached = self._read(source, since, resumed, known, newest)
            if reached == since:
                return new
            found = source.find(rows, known.state)
            digest = _digest(source, found.matches)
            skip = known.done if reached == resumed and digest == known.digest else 0
            progress = _Progress(
                self._endpoint,
                source.name,
                cursor,
                replace(known, rules=names, digest=digest, reaching=reached),
                known.at(reached, found.state),
                self._clock,
            )
            fresh = writer.write(found.matches, progress, skip=skip)
            new += fresh
            if found.matches.height:
                logger.info(
                    "cases selected: endpoint=%s source=%s version=%d flagged=%d new=%d",
                    self._endpoint,
                    source.name,
                    reached,
                    found.matches[ID].n_unique(),
                    fresh,
                )

    def _read(
        self, source: Source, since: int | None, until: int | None, cursor: Cursor, newest: int
    ) -> tuple[pl.DataFrame, int | None]:
        """Rows that were added after ``since``, and the version up to which."""
        table = source.table
        if until is not None and until > newest:
            until = None
        try:
            changes = table.read_since(since, columns=source.columns, max_rows=ROWS_PER_READ, until=until)
        except Missing as error:
            # Maintenance ended the history. Records are looked at again, and cases that are there stay the same ones.
            logger.warning(
                "rows are read anew: endpoint=%s source=%s reason=%s", self._endpoint, source.name, error
            )
            if source.look_back is None or cursor.updated_at is None:
                changes = table.read_since(None, columns=source.columns, max_rows=ROWS_PER_READ)
            else:
                recent = table.scan(since=cursor.updated_at - source.look_back).select(source.columns)
                return collected(recent), newest
        return changes.frame, changes.version

    def _begin(
        self, source: Source, cursor: Cursor | None, newest: int | None, names: frozenset[str]
    ) -> None:
        after = replace(Cursor(None) if cursor is None else cursor, rules=names).at(newest, {})
        with self._database.session() as session:
            move_cursor(session, self._endpoint, source.name, cursor, after, self._clock.now())

    def _cursor(self, source: str) -> Cursor | None:
        with self._database.session(read_only=True) as session:
            return read_cursor(session, self._endpoint, source)

    def _settle(self, writer: BatchWriter) -> int:
        """Store the records that have come since a rule found them, and give up on those that it is too late for."""
        with self._database.session(read_only=True) as session:
            waiting = read_pending(session, self._endpoint)
            cursor = read_cursor(session, self._endpoint, _PENDING)
        if not waiting:
            return 0
        ids, version = arrived(self._tables.payload, waiting)
        now = self._clock.now()
        there = [row for row in waiting if row.databricks_request_id in ids]
        late = [row for row in waiting if row.databricks_request_id not in ids and row.give_up_at <= now]
        if not there and not late and all(row.payload_version == version for row in waiting):
            return 0
        known = Cursor(None) if cursor is None else cursor
        moved = _Progress(
            self._endpoint, _PENDING, cursor, known, known.at(version, known.state), self._clock
        )

        def step(taken: Step) -> None:
            moved(taken)
            forget_pending(taken.session, self._endpoint, taken.ids)
            if taken.is_last:
                tally = Tally()
                tally.without_text.update(row.rule for row in late)
                tally.add_to(taken.session, self._endpoint, now.date())
                # With these go those of rules that there are no more.
                done = {row.databricks_request_id for row in (*late, *there)}
                forget_pending(taken.session, self._endpoint, done)
                still = {row.databricks_request_id for row in waiting} - done
                looked_until(taken.session, self._endpoint, still, version)

        return writer.write(as_matches(there, self._rules), step, wait=False)


class _Progress:
    """Moves a cursor with every transaction: ``started`` while some are to follow, then ``finished``."""

    def __init__(
        self,
        endpoint: str,
        source: str,
        before: Cursor | None,
        started: Cursor,
        finished: Cursor,
        clock: Clock,
    ) -> None:
        self._endpoint = endpoint
        self._source = source
        self._before = before
        self._started = started
        self._finished = replace(finished, rules=started.rules)
        self._clock = clock

    def __call__(self, step: Step) -> None:
        after = self._finished if step.is_last else replace(self._started, done=step.done)
        move_cursor(step.session, self._endpoint, self._source, self._before, after, self._clock.now())
        self._before = after


def _digest(source: Source, found: pl.DataFrame) -> str:
    """Of the rules and what they found: as long as it is the same, so is the order in which records are stored."""
    rules = repr(sorted(source.numbered.items())).encode()
    rows = found.sort(ID, "rule").select(ID, "rule", "extreme").write_csv().encode()
    return hashlib.sha256(rules + rows).hexdigest()


def _begins_now(source: Source, cursor: Cursor | None, names: frozenset[str]) -> bool:
    """Whether what is in the table already is nothing to the rules: none of them was there when it was read last."""
    if cursor is None:
        return not source.reads_past
    return cursor.rules is not None and not cursor.rules & names
