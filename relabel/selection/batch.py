"""Stores the matches of one read: the most urgent first, some hundred records a transaction.

Invariant: what a transaction stores, counts and leaves waiting is noted in it as done with, so after a crash at any point
the rest is stored once, and nothing is counted twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import polars as pl
from sqlalchemy.orm import Session

from collector.catalog import EndpointTables
from relabel.alternatives import add_late, shadow_answers
from relabel.case import Alternative, Reason, ReasonKind, RecordedScore
from relabel.conversation import storable
from relabel.selection.case_writer import (
    ACTOR,
    add_reasons,
    cases_of_contents,
    cases_of_records,
    keep_probabilities,
    store,
)
from relabel.selection.chooser import Chooser
from relabel.selection.draws import drawn
from relabel.selection.pending import keep_pending
from relabel.selection.rule import CaseRule, RandomRule
from relabel.selection.rule_days import Tally, cases_of_day
from relabel.selection.snapshots import Snapshots, read_scores, read_snapshots
from relabel.selection.sources.newest_scores import span
from relabel.selection.sources.source import ID
from servelens.clock import Clock
from servelens.database import Database

logger = logging.getLogger(__name__)

_RECORDS_PER_TRANSACTION: Final = 125  # who claims a case meanwhile waits for one
_RECORDS_PER_LOOK: Final = 1_000  # whole records are held
_PLACE: Final = "place"

_Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Step:
    """A transaction: what to do in it beside storing ``ids``, which are ``done`` records with it. ``is_last``: none follows."""

    session: Session
    ids: Sequence[str]
    done: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class _Look:
    """What is known of the records of a few transactions. ``late``: what shadows said of those that are cases already and
    were flagged for it; it had not been said when they became cases.
    """

    snapshots: Snapshots
    late: Mapping[str, Sequence[Alternative]]
    scores: Mapping[str, Sequence[RecordedScore]]
    exhausted: frozenset[str]


class BatchWriter:
    """Of one run: ``chooser`` remembers what it has stored."""

    def __init__(
        self,
        tables: EndpointTables,
        endpoint: str,
        rules: Sequence[CaseRule],
        database: Database,
        clock: Clock,
        chooser: Chooser,
    ) -> None:
        self._tables = tables
        self._endpoint = endpoint
        self._rules = rules
        self._database = database
        self._clock = clock
        self._chooser = chooser
        self._budgets = {
            rule.name: rule.daily_budget
            for rule in rules
            # That of the control sample lowers its fraction, and caps nothing.
            if rule.daily_budget is not None and not isinstance(rule, RandomRule)
        }

    def write(
        self, found: pl.DataFrame, step: Callable[[Step], None], *, skip: int = 0, wait: bool = True
    ) -> int:
        """Store the matches ``found``, without the first ``skip`` records, which are done with; the number of new cases.

        ``step`` is called in every transaction, at least once. With ``wait``, records that are not in the inference table
        are waited for. Raises what the database and the tables raise, and what ``step`` does.
        """
        records, matches = _ordered(self._sampled(found), self._rules)
        todo = records.slice(skip)
        new, done = 0, min(skip, records.height)
        for block in _slices(todo, _RECORDS_PER_LOOK):
            of_block = _by_record(matches, block)
            look = self._look(block, of_block)
            for chunk in _slices(block, _RECORDS_PER_TRANSACTION):
                done += chunk.height
                rows = {name: of_block[name] for name in chunk[ID].to_list()}
                new += self._store(rows, look, step, done, done == records.height, wait)
        return new

    def _sampled(self, found: pl.DataFrame) -> pl.DataFrame:
        """Without the matches that the rule's sample leaves out."""
        for number, rule in enumerate(self._rules):
            if rule.sample < 1.0:
                of_rule = found.filter(pl.col("rule") == number)
                kept = pl.Series(drawn(of_rule[ID].to_list(), rule.sample, f"rule {rule.name}"))
                found = pl.concat([found.filter(pl.col("rule") != number), of_rule.filter(kept)])
        return found

    def _look(self, block: pl.DataFrame, rows: Mapping[str, _Rows]) -> _Look:
        with self._database.session(read_only=True) as session:
            known = cases_of_records(session, self._endpoint, list(rows))
            left = self._left(session)
        names = {number: rule.name for number, rule in enumerate(self._rules)}
        exhausted = frozenset(
            request_id
            for request_id, matches in rows.items()
            if request_id not in known and all(left.get(names[row["rule"]]) == 0 for row in matches)
        )
        looked_at = block.filter(pl.col(ID).is_in(list(exhausted)).not_()) if exhausted else block
        scores = read_scores(self._tables, looked_at)
        open_ = looked_at.filter(pl.col(ID).is_in(list(known)).not_()) if known else looked_at
        snapshots = read_snapshots(self._tables, open_, scores)
        return _Look(snapshots, self._late(block, known, rows), scores, exhausted)

    def _late(
        self, block: pl.DataFrame, known: Mapping[str, int], rows: Mapping[str, _Rows]
    ) -> Mapping[str, Sequence[Alternative]]:
        """What shadows said of the records that are cases already and that a rule about shadows has found."""
        shadowed = [
            request_id
            for request_id in known
            if any(
                self._rules[row["rule"]].kind is ReasonKind.SHADOW_DISAGREEMENT for row in rows[request_id]
            )
        ]
        if not shadowed:
            return {}
        since, until = span(block.filter(pl.col(ID).is_in(shadowed)))
        return shadow_answers(self._tables, shadowed, since, until)

    def _left(self, session: Session) -> dict[str, int | None]:
        """Of today's budgets, of the rules that have one."""
        used = cases_of_day(session, self._endpoint, self._clock.now().date())
        return {name: max(budget - used.get(name, 0), 0) for name, budget in self._budgets.items()}

    def _store(
        self,
        rows: Mapping[str, _Rows],
        look: _Look,
        step: Callable[[Step], None],
        done: int,
        is_last: bool,
        wait: bool,
    ) -> int:
        now = self._clock.now()
        reasons = {request_id: _reasons(matches, self._rules) for request_id, matches in rows.items()}
        sampled = {
            request_id: row["sampled"]
            for request_id, matches in rows.items()
            for row in matches
            if row["sampled"] is not None
        }
        flagged = [
            replace(record, reasons=reasons[request_id], sampled=sampled.get(request_id))
            for request_id in rows
            if (record := look.snapshots.records.get(request_id)) is not None
        ]
        tally = Tally()
        with self._database.session(read_only=True) as session:
            known = cases_of_records(session, self._endpoint, list(rows))
            contents = cases_of_contents(
                session, self._endpoint, [record.conversation.content_hash for record in flagged]
            )
            left = self._left(session)
        fresh = [record for record in flagged if record.databricks_request_id not in known]
        choice = self._chooser.choose(fresh, contents, left, now)
        for record in choice.over_budget:
            tally.over_budget.update(reason.rule for reason in record.reasons)
        for record in choice.over_cluster:
            tally.over_cluster.update(reason.rule for reason in record.reasons)
        with self._database.session() as session:
            step(Step(session, list(rows), done, is_last))
            stored = store(session, self._endpoint, choice.taken, choice.placements, now)
            again = [
                (case_id, reasons[request_id], look.scores.get(request_id, ()))
                for request_id, case_id in known.items()
            ]
            add_reasons(session, again, now)
            for request_id in look.late.keys() & known.keys():
                add_late(session, known[request_id], request_id, look.late[request_id], now, actor=ACTOR)
            keep_probabilities(
                session, self._endpoint, {name: share for name, share in sampled.items() if name in known}
            )
            for request_id in stored.new:
                tally.cases.update(choice.charged.get(request_id, ()))
            for request_id in stored.repeated:
                tally.repeated.update(reason.rule for reason in reasons[request_id])
            for request_id in look.exhausted & rows.keys() - known.keys():
                tally.over_budget.update(reason.rule for reason in reasons[request_id])
            self._count_textless(session, rows, look, reasons, tally, wait)
            tally.add_to(session, self._endpoint, now.date())
        self._chooser.remember(choice, stored)
        return len(stored.new)

    def _count_textless(
        self,
        session: Session,
        rows: Mapping[str, _Rows],
        look: _Look,
        reasons: Mapping[str, Sequence[Reason]],
        tally: Tally,
        wait: bool,
    ) -> None:
        """Over the size limit, deleted by retention, or not there yet: nothing that a person could look at."""
        empty = look.snapshots.without_text & rows.keys()
        for request_id in empty:
            tally.without_text.update(reason.rule for reason in reasons[request_id])
        absent = sorted(look.snapshots.absent & rows.keys())
        late = [row for request_id in absent for row in rows[request_id]]
        if wait:
            late = list(
                keep_pending(
                    session,
                    self._endpoint,
                    self._rules,
                    late,
                    look.snapshots.payload_version,
                    self._clock.now(),
                )
            )
        tally.without_text.update(self._rules[row["rule"]].name for row in late)
        gone = len(empty) + len({row[ID] for row in late})
        if gone:
            logger.warning("flagged records have no text: endpoint=%s records=%d", self._endpoint, gone)


def _ordered(found: pl.DataFrame, rules: Sequence[CaseRule]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The records (id, time) in the order in which they are stored, and the matches with the place of their record.

    Priority first; then how far out a match is among those of its rule, for scores of two evaluators cannot be compared.
    """
    priorities = {number: rule.priority for number, rule in enumerate(rules)}
    rank = pl.col("extreme").rank("average").over("rule") / pl.len().over("rule")
    ranked = found.with_columns(
        priority=pl.col("rule").replace_strict(priorities, return_dtype=pl.Int32), rank=rank.fill_null(0.0)
    )
    records = (
        ranked.group_by(ID)
        .agg(pl.col("request_time").min(), pl.col("priority").max(), pl.col("rank").max())
        .sort("priority", "rank", "request_time", ID, descending=[True, True, False, False])
        .select(ID, "request_time")
        .with_row_index(_PLACE)
    )
    return records, found.join(records.select(ID, _PLACE), on=ID).sort(_PLACE, "rule")


def _slices(records: pl.DataFrame, size: int) -> Iterator[pl.DataFrame]:
    """One empty slice where there is none."""
    yield from records.iter_slices(size) if records.height else [records]


def _by_record(matches: pl.DataFrame, block: pl.DataFrame) -> dict[str, list[Mapping[str, Any]]]:
    """The matches of the records of ``block``, in its order."""
    if block.is_empty():
        return {}
    first, last = block[_PLACE][0], block[_PLACE][-1]
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in matches.filter(pl.col(_PLACE).is_between(first, last)).iter_rows(named=True):
        found.setdefault(row[ID], []).append(row)
    return found


def _reasons(rows: _Rows, rules: Sequence[CaseRule]) -> tuple[Reason, ...]:
    """One reason for each name: that of the rule of the highest priority."""
    found: dict[str, Reason] = {}
    for row in rows:
        rule = rules[row["rule"]]
        if rule.name in found and found[rule.name].priority >= rule.priority:
            continue
        found[rule.name] = Reason(
            rule=rule.name,
            kind=rule.kind,
            priority=rule.priority,
            evaluator=row["evaluator"],
            evaluator_version=row["evaluator_version"],
            target=row["target"],
            score=row["score"],
            direction=rule.direction,
            threshold=rule.threshold,
            label=storable(row["label"]),
            detail=storable(row["detail"]),
        )
    return tuple(found.values())
