"""Scores the records of a past period that this version of an evaluator has not scored.

Invariant: a record is never scored by a backfill and by the schedule. The schedule takes what was added after the version
of the inference table that it has committed; a backfill leaves exactly that out, so the two are disjoint however far
the schedule comes meanwhile. Where the schedule has to *look* for what is not scored (before its first run, and when the
history of the table has ended) only one of them may run: both hold the same lease for that, which the ``fence`` of a
backfill checks before each commit. Two backfills exclude each other by it as well.

Each portion is one commit, which is counted by an application transaction. After SIGKILL at any moment the same command
goes on where the last commit ended, since it looks for what is not scored. Rows that an older version of the evaluator
wrote about a record are deleted after the new ones are in; whoever reads between the two commits sees both, and a
backfill that was killed there deletes them when it is started again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from threading import Event
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from collector.deletion import Also, delete_keys
from evaluators.evaluator import Evaluator
from evaluators.runs.record_scorer import RecordScorer, Totals
from evaluators.runs.run_history import RunHistory, Trigger
from evaluators.runs.runner import backfill_id
from evaluators.runs.unscored_records import Wanted, count_unscored, unscored_records
from servelens.clock import Clock
from servelens.errors import Missing, Unavailable

logger = logging.getLogger(__name__)

_ID: Final = "databricks_request_id"
_MAX_ROWS: Final = 2_000


class Backfill:
    """One evaluator over a period of one endpoint's records.

    ``since`` and ``until`` (exclusive) are of ``request_time``. ``rescore`` takes also those that this version has
    scored. ``fence`` is called before each commit and raises when this process may not write any more.
    """

    def __init__(
        self,
        tables: EndpointTables,
        endpoint: str,
        evaluator: Evaluator,
        history: RunHistory,
        clock: Clock,
        *,
        since: datetime,
        until: datetime,
        rescore: bool = False,
        evaluation: str | None = None,
        fence: Callable[[], None] = lambda: None,
        max_rows: int = _MAX_ROWS,
    ) -> None:
        self._tables = tables
        self._endpoint = endpoint
        self._evaluator = evaluator
        self._history = history
        self._clock = clock
        self._since = since
        self._until = until
        self._rescore = rescore
        self._evaluation = evaluation
        self._fence = fence
        self._max_rows = max_rows
        self._scorer = RecordScorer(tables, evaluator, clock, fence=fence)

    def run(
        self,
        progress: Callable[[int, int], None] = lambda done, total: None,
        stop: Event | None = None,
    ) -> Totals:
        """Score what is not scored; ``progress`` is told after each portion how many records are done, and of how many.
        With ``stop`` set it ends after the portion in hand.

        Raises what the evaluator and the tables raise: what was committed until then stays.
        """
        totals = Totals(None)
        version = self._tables.payload.version()
        if version is None:
            progress(0, 0)
            return totals
        self._fence()
        self._tidy()
        wanted = self._wanted(version)
        total = count_unscored(self._tables, wanted, version=version)
        progress(0, total)
        if total == 0:
            return totals
        replaces = self._rescore or self._has_older_rows()
        transaction = backfill_id(self._scorer.application_id)
        portion = self._tables.scores.transaction_version(transaction) or 0
        with self._history.recorded(
            endpoint=self._endpoint,
            evaluator=self._evaluator.name,
            target=self._evaluator.target,
            device=self._evaluator.device,
            from_version=None,
            evaluator_version=self._evaluator.version,
            evaluation=self._evaluation,
            trigger=Trigger.BACKFILL,
        ) as noted:
            found = unscored_records(
                self._tables, wanted, version=version, columns=self._scorer.columns, max_rows=self._max_rows
            )
            for records in found:
                if stop is not None and stop.is_set():
                    break
                scores = self._scorer.score(records)
                portion += 1
                scored_at = self._scorer.keep(records, scores, {transaction: portion})
                if replaces:
                    self._replace(records[_ID].to_list(), scored_at)
                totals.add(records, scores, scored_at)
                noted.update(
                    to_version=version,
                    scored=totals.scored,
                    unscored_reasons=totals.unscored_reasons,
                    waiting=total - totals.rows,
                    **totals.columns(),
                )
                progress(totals.rows, total)
        return totals

    def _wanted(self, version: int) -> Wanted:
        return Wanted(
            self._evaluator.name,
            self._evaluator.target,
            evaluator_version=self._evaluator.version,
            scored_from=self._clock.now() if self._rescore else None,
            since=self._since,
            until=self._until,
            but=self._left_to_the_schedule(version),
        )

    def _left_to_the_schedule(self, version: int) -> pl.Series | None:
        """The ids that were added after the version that the schedule has reached."""
        reached = self._tables.scores.transaction_version(self._scorer.application_id)
        if reached is None or reached >= version:
            return None
        try:
            changes = self._tables.payload.read_since(reached, columns=[_ID], until=version)
        except Missing as error:
            # The schedule cannot tell either: it will look for what is not scored, for which it needs the lease.
            logger.info("the table's history has ended: endpoint=%s reason=%s", self._endpoint, error)
            return None
        return changes.frame[_ID]

    def _tidy(self) -> None:
        """Delete older rows about records that have newer ones, which a backfill that was killed may have left."""
        mine = Wanted(self._evaluator.name, self._evaluator.target, since=self._since, until=self._until)
        doubled = self._collected(
            mine.rows(self._tables)
            .group_by(_ID)
            .agg(pl.col("scored_at").max(), pl.col("scored_at").n_unique().alias("times"))
            .filter(pl.col("times") > 1)
        )
        for (scored_at,), group in doubled.group_by("scored_at"):
            if isinstance(scored_at, datetime):
                self._replace(group[_ID].to_list(), scored_at)

    def _has_older_rows(self) -> bool:
        mine = Wanted(self._evaluator.name, self._evaluator.target, since=self._since, until=self._until)
        other = pl.col("evaluator_version").ne_missing(self._evaluator.version)
        return not self._collected(mine.rows(self._tables).filter(other).select(_ID).head(1)).is_empty()

    def _collected(self, frame: pl.LazyFrame) -> pl.DataFrame:
        try:
            return frame.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Unavailable(f"the scores cannot be read: {error}", field=self._tables.scores.uri) from error

    def _replace(self, ids: list[str], scored_at: datetime) -> None:
        """Delete the rows about ``ids`` that were written before ``scored_at``."""
        evaluator, target = self._evaluator.name, self._evaluator.target
        older = Also(
            f"evaluator = {_text(evaluator)} AND target = {_text(target)} "
            f"AND scored_at < '{scored_at:%Y-%m-%dT%H:%M:%S.%f}Z'",
            (pl.col("evaluator") == evaluator)
            & (pl.col("target") == target)
            & (pl.col("scored_at") < scored_at),
        )
        deleted = delete_keys(self._tables.scores, _ID, ids, older)
        if deleted:
            logger.info("older scores replaced: %s rows=%d", self._scorer.application_id, deleted)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
