"""Profiles every closed window of one endpoint and compares it with its reference window.

Invariant: a window is profiled and compared once per granularity, also across crashes. Windows are done in
order, and the rows of a run are one commit per table that carries the end of the last window as an
application transaction (``drift@1 hour@CONSECUTIVE`` → seconds since the epoch): either the rows and that
number are in the table, or neither. Profiles do not depend on the reference, so they keep a number of their
own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from collector.table import Table
from evaluators.drift.profile import profile_rows
from evaluators.drift.report import ReportWriter
from evaluators.drift.rows import MIN_ROWS, DriftType, drift_rows
from evaluators.drift.window_data import read_window
from evaluators.drift.windows import Granularity, Window
from evaluators.runs.run_history import RunHistory
from servelens.clock import Clock

logger = logging.getLogger(__name__)

EVALUATOR: Final = "drift"
"""The name under which the run history has these runs."""

_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class DriftSummary:
    """What one run did: the windows it looked at, the rows it added, and the newest window's report."""

    endpoint: str
    granularity: str
    windows: tuple[Window, ...]
    profile_rows: int
    drift_rows: int
    report: Path | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """A window to do, and which of its rows are still missing."""

    window: Window
    window_cmp: Window | None
    profile: bool
    drift: bool


class DriftRunner:
    """Profiles and drift of one endpoint at one granularity.

    Without a ``baseline`` each window is compared with the one before it. A window is closed ``lag`` after
    its end: give records and scores that long to arrive, since a window is not looked at again. A run does
    at most ``max_windows``; the first one begins that many windows back. ``min_rows``: see
    :mod:`evaluators.drift.rows`.
    """

    def __init__(
        self,
        tables: EndpointTables,
        endpoint: str,
        history: RunHistory,
        clock: Clock,
        *,
        granularity: Granularity,
        baseline: Window | None = None,
        lag: timedelta = timedelta(minutes=1),
        max_windows: int = 24,
        min_rows: int = MIN_ROWS,
        report: ReportWriter | None = None,
    ) -> None:
        self._tables = tables
        self._endpoint = endpoint
        self._history = history
        self._clock = clock
        self._granularity = granularity
        self._baseline = baseline
        self._lag = lag
        self._max_windows = max_windows
        self._min_rows = min_rows
        self._report = report
        self._drift_type = DriftType.CONSECUTIVE if baseline is None else DriftType.BASELINE

    def run(self) -> DriftSummary:
        """Do the closed windows that are not done yet; without one it adds nothing.

        Raises what the tables raise, and :class:`~servelens.errors.Unavailable` when the report fails: the
        rows are in the tables by then.
        """
        profiled = _done(self._tables.profiles, self._profile_id)
        compared = _done(self._tables.drift, self._drift_id)
        now = self._clock.now()
        first = self._granularity.start_of_last(self._max_windows, now=now, lag=self._lag)
        closed = self._granularity.closed(
            since=min(profiled or first, compared or first), now=now, lag=self._lag, limit=self._max_windows
        )
        plans = [
            _Plan(
                window=window,
                window_cmp=self._reference(window),
                profile=profiled is None or window.start >= profiled,
                drift=compared is None or window.start >= compared,
            )
            for window in closed
        ]
        return self._do(plans, str(self._granularity), leading_empty=profiled is None, in_order=True)

    def run_until_now(self, length: timedelta | None = None) -> DriftSummary:
        """Compare the time of ``length`` (default: one window) up to now with the baseline, or the same
        time before it.

        For a person who does not want to wait for the window's end. Its rows say ``last 1 hour`` as their
        granularity, so they are not taken for those of closed windows.
        """
        now = self._clock.now()
        length = length or self._granularity.containing(now).length
        window = Window(now - length, now)
        return self.run_window(
            window, self._baseline or window.before(), granularity=f"last {_described(length)}"
        )

    def run_window(self, window: Window, window_cmp: Window, *, granularity: str) -> DriftSummary:
        """Compare any two windows, under a ``granularity`` of the caller's naming; once, however often it
        is called."""
        plan = _Plan(
            window=window,
            window_cmp=window_cmp,
            profile=not _has(self._tables.profiles, window, granularity),
            drift=not _has(self._tables.drift, window, granularity, window_cmp),
        )
        plans = [plan] if plan.profile or plan.drift else []
        return self._do(plans, granularity, leading_empty=False, in_order=False)

    @property
    def _profile_id(self) -> str:
        return f"profile@{self._granularity}"

    @property
    def _drift_id(self) -> str:
        if self._baseline is None:
            return f"drift@{self._granularity}@{self._drift_type}"
        start, end = (f"{moment:%Y%m%dT%H%M%S}" for moment in (self._baseline.start, self._baseline.end))
        return f"drift@{self._granularity}@{self._drift_type}@{start}_{end}"

    def _reference(self, window: Window) -> Window | None:
        if self._baseline is None:
            return self._granularity.before(window)
        overlaps = window.start < self._baseline.end and self._baseline.start < window.end
        return None if overlaps else self._baseline

    def _do(
        self, plans: list[_Plan], granularity: str, *, leading_empty: bool, in_order: bool
    ) -> DriftSummary:
        started = self._clock.monotonic()
        version = self._tables.payload.version()
        if not plans or version is None:
            return self._summary([], granularity, 0, 0, None, started)
        frames = _Frames(self._tables, version)
        if leading_empty:
            # What is before the first record is no window in which nothing happened.
            while plans and frames.of(plans[0].window).is_empty():
                plans = plans[1:]
        if not plans:
            return self._summary([], granularity, 0, 0, None, started)
        with self._history.recorded(
            endpoint=self._endpoint,
            evaluator=EVALUATOR,
            target=granularity,
            device="cpu",
            from_version=version,
        ) as progress:
            profiles, drift, records = [], [], 0
            for plan in plans:
                current = frames.of(plan.window)
                records += current.height
                if plan.profile:
                    profiles.append(
                        profile_rows(
                            current, window=plan.window, granularity=granularity, payload_version=version
                        )
                    )
                if plan.drift and plan.window_cmp is not None:
                    drift.append(self._compared(frames, plan.window, plan.window_cmp, granularity))
            end = int(plans[-1].window.end.timestamp())
            profile_count = _append(
                self._tables.profiles, profiles, self._profile_id if in_order else None, end
            )
            drift_count = _append(self._tables.drift, drift, self._drift_id if in_order else None, end)
            progress.update(to_version=version, scored=records, unscored_reasons={})
            report = self._write_report(frames, plans[-1], granularity)
        return self._summary(
            [plan.window for plan in plans], granularity, profile_count, drift_count, report, started
        )

    def _compared(
        self, frames: _Frames, window: Window, window_cmp: Window, granularity: str
    ) -> pl.DataFrame:
        return drift_rows(
            frames.of(window),
            frames.of(window_cmp),
            window=window,
            window_cmp=window_cmp,
            granularity=granularity,
            drift_type=self._drift_type,
            min_rows=self._min_rows,
        )

    def _write_report(self, frames: _Frames, plan: _Plan, granularity: str) -> Path | None:
        if self._report is None or plan.window_cmp is None:
            return None
        return self._report.write(
            frames.of(plan.window),
            frames.of(plan.window_cmp),
            endpoint=self._endpoint,
            window=plan.window,
            window_cmp=plan.window_cmp,
            granularity=granularity,
        )

    def _summary(
        self,
        windows: list[Window],
        granularity: str,
        profiles: int,
        drift: int,
        report: Path | None,
        started: float,
    ) -> DriftSummary:
        return DriftSummary(
            endpoint=self._endpoint,
            granularity=granularity,
            windows=tuple(windows),
            profile_rows=profiles,
            drift_rows=drift,
            report=report,
            duration_s=self._clock.monotonic() - started,
        )


class _Frames:
    """The rows of windows at one version of the inference table; the last two read are kept."""

    def __init__(self, tables: EndpointTables, version: int) -> None:
        self._tables = tables
        self._version = version
        self._kept: dict[Window, pl.DataFrame] = {}

    def of(self, window: Window) -> pl.DataFrame:
        frame = self._kept.pop(window, None)
        if frame is None:
            frame = read_window(self._tables, window, version=self._version)
        self._kept[window] = frame
        while len(self._kept) > 2:
            self._kept.pop(next(iter(self._kept)))
        return frame


def _done(table: Table, application_id: str) -> datetime | None:
    version = table.transaction_version(application_id)
    return None if version is None else datetime.fromtimestamp(version, UTC)


def _append(table: Table, frames: list[pl.DataFrame], application_id: str | None, end: int) -> int:
    rows = pl.concat(frames) if frames else None
    if rows is None or rows.is_empty():
        return 0
    table.append(rows, transactions=None if application_id is None else {application_id: end})
    return rows.height


def _has(table: Table, window: Window, granularity: str, window_cmp: Window | None = None) -> bool:
    """Whether ``table`` has rows of exactly this window (pair) and granularity."""
    same = (pl.col("window").struct.field("end") == window.end) & (pl.col("granularity") == granularity)
    if window_cmp is not None:
        compared = pl.col("window_cmp").struct
        same &= (compared.field("start") == window_cmp.start) & (compared.field("end") == window_cmp.end)
    until = window.start + timedelta(microseconds=1)
    rows = table.scan(since=window.start, until=until).filter(same).select(pl.len()).collect()
    return bool(rows.item())


def _described(length: timedelta) -> str:
    for unit, size in (
        ("day", timedelta(days=1)),
        ("hour", timedelta(hours=1)),
        ("minute", timedelta(minutes=1)),
    ):
        if length % size == timedelta(0):
            return str(Granularity(length // size, unit))
    seconds = length / _SECOND
    return f"{seconds:g} second{'' if seconds == 1 else 's'}"
