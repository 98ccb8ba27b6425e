"""Selection: scores past a threshold become cases.

Invariant: every score is looked at, and no record counts twice, also across crashes. The scores table is read
by version, and the version reached is stored in the same SQL transaction as the last of its cases; what was
stored before a crash is recognised by its record id when the same commits are read again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from collector.catalog import EndpointTables
from collector.table import Changes
from relabel.case import Reason, ReasonKind, RecordedScore
from relabel.conversation import read_conversation, storable
from relabel.models import CursorRow
from relabel.selection.case_writer import Flagged, store_flagged
from relabel.selection.rule import Rule
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict, Missing, Unavailable

logger = logging.getLogger(__name__)

_SCORE_COLUMNS = ("databricks_request_id", "request_time", "evaluator", "target", "score", "label")
_PAYLOAD_COLUMNS = (
    "databricks_request_id",
    "request_time",
    "request",
    "response",
    "prompt_text",
    "response_text",
    "served_entity",
    "variant",
    "model",
)
_SOURCE = "scores"
_SCORES_PER_READ = 50_000
_RECORDS_PER_TRANSACTION = 500
_MICROSECOND = timedelta(microseconds=1)


class Selector:
    """Turns new scores of ``endpoint`` into cases by ``rules``.

    A rule applies to the scores that are written after the run that first knew it.
    """

    def __init__(
        self, tables: EndpointTables, endpoint: str, rules: Sequence[Rule], database: Database, clock: Clock
    ) -> None:
        self._tables = tables
        self._endpoint = endpoint
        self._rules = tuple(rules)
        self._database = database
        self._clock = clock

    def run(self) -> int:
        """Look at all scores that are new since the last run; the number of new cases.

        Raises :class:`~servelens.errors.Conflict` when another selector of this endpoint runs at the same
        time (its work stands, and the next run goes on from there), and
        :class:`~servelens.errors.Unavailable` when a table or the database fails.
        """
        new_cases = 0
        while True:
            version = self._version()
            newest = self._tables.scores.version()
            since = version
            if version is not None and newest is not None and newest < version:
                logger.warning(
                    "the scores table was made anew: endpoint=%s version=%d", self._endpoint, newest
                )
                since = None
            changes = self._news_since(since)
            if changes.version is None or changes.version == since:
                return new_cases
            new_cases += self._store(_past_threshold(changes.frame, self._rules), version, changes.version)

    def _news_since(self, version: int | None) -> Changes:
        scores = self._tables.scores
        try:
            return scores.read_since(version, columns=_SCORE_COLUMNS, max_rows=_SCORES_PER_READ)
        except Missing as error:
            # Maintenance ended the history. Every score is looked at again, and cases that are there stay the same ones.
            logger.warning("all scores are read anew: endpoint=%s reason=%s", self._endpoint, error)
            return scores.read_since(None, columns=_SCORE_COLUMNS, max_rows=_SCORES_PER_READ)

    def _version(self) -> int | None:
        with self._database.session(read_only=True) as session:
            row = session.get(CursorRow, (self._endpoint, _SOURCE))
            return None if row is None else row.version

    def _store(self, past: pl.DataFrame, version: int | None, reached: int) -> int:
        new_cases = 0
        records = past.select("databricks_request_id", "request_time").unique("databricks_request_id")
        records = records.sort("request_time", "databricks_request_id")
        chunks = list(records.iter_slices(_RECORDS_PER_TRANSACTION)) or [records]
        for number, chunk in enumerate(chunks, start=1):
            flagged = list(self._flagged(chunk, past)) if chunk.height else []
            now = self._clock.now()
            with self._database.session() as session:
                row = self._locked_selection(session, version)
                new_cases += store_flagged(session, self._endpoint, flagged, now)
                if number == len(chunks):
                    row.version = reached
                row.updated_at = now
        if past.height:
            logger.info(
                "cases selected: endpoint=%s scores_version=%d flagged=%d new=%d",
                self._endpoint,
                reached,
                records.height,
                new_cases,
            )
        return new_cases

    def _locked_selection(self, session: Session, version: int | None) -> CursorRow:
        row = session.scalar(
            select(CursorRow)
            .where(CursorRow.endpoint == self._endpoint, CursorRow.source == _SOURCE)
            .with_for_update()
        )
        if row is None:
            row = CursorRow(
                endpoint=self._endpoint, source=_SOURCE, version=None, updated_at=self._clock.now()
            )
            session.add(row)
            session.flush()
        if row.version != version:
            raise Conflict(
                f"another selector has taken endpoint {self._endpoint!r} from scores version {version} "
                f"to {row.version}",
                fix="Run the selection again.",
            )
        return row

    def _flagged(self, chunk: pl.DataFrame, past: pl.DataFrame) -> Iterator[Flagged]:
        """The records of ``chunk`` (sorted by time) with reasons, scores so far and snapshots."""
        since, until = chunk["request_time"][0], chunk["request_time"][-1] + _MICROSECOND
        ids = chunk["databricks_request_id"].to_list()
        wanted = pl.col("databricks_request_id").is_in(ids)
        payload = self._tables.payload.scan(since=since, until=until).filter(wanted).select(_PAYLOAD_COLUMNS)
        scored = self._tables.scores.scan(since=since, until=until).filter(wanted).select(_SCORE_COLUMNS)
        rows = {row["databricks_request_id"]: row for row in _collected(payload).iter_rows(named=True)}
        scores = _scores(_collected(scored))
        reasons = _reasons(past.filter(wanted), self._rules)
        for request_id in ids:
            row = rows.get(request_id)
            conversation = (
                None
                if row is None
                else read_conversation(
                    row["request"], row["response"], row["prompt_text"], row["response_text"]
                )
            )
            if row is None or conversation is None:
                # Over the size limit, or deleted by retention: there is nothing that a person could look at.
                logger.warning(
                    "flagged record has no text: endpoint=%s databricks_request_id=%s",
                    self._endpoint,
                    request_id,
                )
                continue
            yield Flagged(
                databricks_request_id=request_id,
                request_time=row["request_time"],
                served_entity=storable(row["served_entity"]),
                variant=storable(row["variant"]),
                model=storable(row["model"]),
                prompt_text=storable(row["prompt_text"]),
                response_text=storable(row["response_text"]),
                conversation=conversation,
                reasons=reasons[request_id],
                scores=scores.get(request_id, ()),
            )


def _collected(frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"a table cannot be read: {error}") from error


def _past_threshold(scores: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """The rows of ``scores`` that a rule applies to, with the rule's number in ``rule``, once per rule."""
    # To polars NaN is greater than any number, and no threshold is meant to catch what is not a number.
    usable = scores.filter(pl.col("score").is_not_nan())
    score = pl.col("score")
    found = [
        usable.filter(
            pl.col("evaluator") == rule.evaluator,
            pl.col("target") == rule.target,
            score > rule.threshold if rule.direction == "above" else score < rule.threshold,
        ).with_columns(pl.lit(number, pl.Int32).alias("rule"))
        for number, rule in enumerate(rules)
    ]
    empty = usable.clear().with_columns(pl.lit(0, pl.Int32).alias("rule"))
    return pl.concat([empty, *found])


def _reasons(past: pl.DataFrame, rules: Sequence[Rule]) -> Mapping[str, Sequence[Reason]]:
    """Per record one reason for each evaluator, target and side: that of the rule of highest priority."""
    found: dict[str, dict[tuple[str, str, str], Reason]] = {}
    for row in past.iter_rows(named=True):
        rule = rules[row["rule"]]
        reason = Reason(
            rule=f"{rule.evaluator} {rule.target} {rule.direction}"[:255],
            kind=ReasonKind.SCORE,
            priority=rule.priority,
            evaluator=rule.evaluator,
            target=rule.target,
            score=row["score"],
            direction=rule.direction,
            threshold=rule.threshold,
        )
        of_record = found.setdefault(row["databricks_request_id"], {})
        key = (rule.evaluator, rule.target, rule.direction)
        if key not in of_record or of_record[key].priority < rule.priority:
            of_record[key] = reason
    return {request_id: tuple(of_record.values()) for request_id, of_record in found.items()}


def _scores(rows: pl.DataFrame) -> Mapping[str, Sequence[RecordedScore]]:
    found: dict[str, dict[tuple[str, str], RecordedScore]] = {}
    for row in rows.sort("evaluator", "target").iter_rows(named=True):
        score: float | None = row["score"]
        if score is not None and not math.isfinite(score):
            score = None  # JSON has no word for it
        found.setdefault(row["databricks_request_id"], {})[row["evaluator"], row["target"]] = RecordedScore(
            row["evaluator"], row["target"], score, storable(row["label"])
        )
    return {request_id: tuple(of_record.values()) for request_id, of_record in found.items()}
