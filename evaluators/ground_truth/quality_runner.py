"""Writes the quality of every closed window to the profile table.

Invariant: a window is written once, also across crashes. The rows of a run are one commit that carries the end of the last
window as an application transaction (``quality@ground_truth@1 day`` → seconds since the epoch). Truth comes late, so a window
is looked at ``lag`` after its end; what comes later still counts on the dashboard, which reads the scores, and not here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from evaluators.drift.windows import Granularity
from evaluators.ground_truth.quality_rows import quality_rows, read_truths
from servelens.clock import Clock

_MAX_WINDOWS: Final = 24


class QualityRunner:
    """The quality of one endpoint's windows by one truth; ``evaluator`` is the name of its scores."""

    def __init__(
        self,
        tables: EndpointTables,
        evaluator: str,
        clock: Clock,
        *,
        granularity: Granularity,
        lag: timedelta,
        max_windows: int = _MAX_WINDOWS,
    ) -> None:
        self._tables = tables
        self._evaluator = evaluator
        self._clock = clock
        self._granularity = granularity
        self._lag = lag
        self._max_windows = max_windows

    @property
    def application_id(self) -> str:
        """Under which the profile table keeps the end of the last window that was looked at."""
        return f"quality@{self._evaluator}@{self._granularity}"

    def run(self) -> int:
        """Write the closed windows that have truths and are not written yet; how many. The first run begins
        ``max_windows`` back. Raises what the tables raise.
        """
        done = self._tables.profiles.transaction_version(self.application_id)
        now, granularity = self._clock.now(), self._granularity
        since = (
            granularity.start_of_last(self._max_windows, now=now, lag=self._lag)
            if done is None
            else datetime.fromtimestamp(done, UTC)
        )
        written: list[pl.DataFrame] = []
        version = self._tables.scores.version()
        windows = granularity.closed(since=since, now=now, lag=self._lag, limit=self._max_windows)
        for window in windows:
            truths = read_truths(self._tables.scores, window, evaluator=self._evaluator)
            if truths.height:
                name = str(granularity)
                rows = quality_rows(
                    truths, window=window, granularity=name, version=version, evaluator=self._evaluator
                )
                written.append(rows)
        if written:
            # Windows without a truth need no commit of their own: they are looked at again, and are cheap.
            end = int(windows[-1].end.timestamp())
            self._tables.profiles.append(pl.concat(written), transactions={self.application_id: end})
        return len(written)
