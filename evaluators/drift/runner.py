"""Profiles every closed window of one endpoint and compares it with its reference.

Invariant: a window is profiled and compared once per granularity and reference, also across crashes. Windows are done
in order, and the rows of a run are one commit per table that carries the end of the last window as an application
transaction (``drift@1 hour@CONSECUTIVE`` → seconds since the epoch): either the rows and that number are in the table,
or neither. Profiles do not depend on the reference, so they keep a number of their own. Sketches are committed first: a
run that is cut off after them finds them again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from collector.table import Table
from evaluators.drift.profile import profile_rows
from evaluators.drift.references import FixedWindow, Previous, Reference
from evaluators.drift.report import ReportWriter
from evaluators.drift.rows import MIN_ROWS, Compared, drift_rows
from evaluators.drift.sketch_store import SketchStore
from evaluators.drift.sketches.kinds import STANDARD_KINDS
from evaluators.drift.sketches.sketch import SketchKinds
from evaluators.drift.slices import BY_VARIANT, Slicing
from evaluators.drift.sources import WindowSource
from evaluators.drift.window_data import STANDARD_SOURCES, sample_window
from evaluators.drift.window_reader import WindowReader
from evaluators.drift.windows import Granularity, Window
from evaluators.runs.run_history import RunHistory
from servelens.clock import Clock

logger = logging.getLogger(__name__)

EVALUATOR: Final = "drift"
"""The name under which the run history has these runs."""

_SECOND: Final = timedelta(seconds=1)
_REPORTED_ROWS: Final = 100_000


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
    """A window to do, and which of its rows are still missing; ``comparable``: whether it can have drift rows at all."""

    window: Window
    window_cmp: Window | None
    profile: bool
    drift: bool
    comparable: bool = True


class DriftRunner:
    """Profiles and drift of one endpoint at one granularity, of what ``sources`` observe, over all records and per slice.

    Each window is compared with its ``reference``: the window before it by default, or ``baseline``, short for
    ``reference=FixedWindow(baseline)``. A window is closed ``lag`` after its end: give records and scores that long to
    arrive, since a window is not looked at again. A run does at most ``max_windows``; the first one begins that many
    windows back. ``min_rows``: see :mod:`evaluators.drift.rows`. ``kinds`` must have every kind that a source gives.
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
        reference: Reference | None = None,
        sources: Sequence[WindowSource] = STANDARD_SOURCES,
        slicing: Slicing = BY_VARIANT,
        kinds: SketchKinds = STANDARD_KINDS,
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
        self._reference = reference or (Previous() if baseline is None else FixedWindow(baseline))
        self._sources = tuple(sources)
        self._slicing = slicing
        self._kinds = kinds
        self._lag = lag
        self._max_windows = max_windows
        self._min_rows = min_rows
        self._report = report
        self._store = SketchStore(tables.sketches, self._sources, slicing, kinds)

    def run(self) -> DriftSummary:
        """Do the closed windows that are not done yet; without one it adds nothing.

        Raises what the tables raise, and :class:`~servelens.errors.Unavailable` when the report fails: the
        rows are in the tables by then.
        """
        done = (
            self._tables.profiles.transaction_version(self._profile_id),
            self._tables.drift.transaction_version(self._drift_id),
        )
        profiled, compared = (None if each is None else datetime.fromtimestamp(each, UTC) for each in done)
        now = self._clock.now()
        first = self._granularity.start_of_last(self._max_windows, now=now, lag=self._lag)
        closed = self._granularity.closed(
            since=min(profiled or first, compared or first), now=now, lag=self._lag, limit=self._max_windows
        )
        plans = [
            _Plan(
                window=window,
                window_cmp=self._reference.window(window, self._granularity),
                profile=profiled is None or window.start >= profiled,
                drift=compared is None or window.start >= compared,
                comparable=self._reference.applies(window),
            )
            for window in closed
        ]
        return self._do(plans, str(self._granularity), leading_empty=profiled is None, done=done)

    def run_until_now(self, length: timedelta | None = None) -> DriftSummary:
        """Compare the time of ``length`` (default: one window) up to now with its reference: the same time before it,
        where that is the window before.

        For a person who does not want to wait for the window's end. Its rows say ``last 1 hour`` as their
        granularity, so they are not taken for those of closed windows.
        """
        now = self._clock.now()
        length = length or self._granularity.containing(now).length
        window = Window(now - length, now)
        return self._once(
            window, self._reference.window(window, None), granularity=f"last {_described(length)}"
        )

    def run_window(self, window: Window, window_cmp: Window, *, granularity: str) -> DriftSummary:
        """Compare any two windows, under a ``granularity`` of the caller's naming; once, however often it
        is called."""
        return self._once(window, window_cmp, granularity=granularity)

    def _once(self, window: Window, window_cmp: Window | None, *, granularity: str) -> DriftSummary:
        plan = _Plan(
            window=window,
            window_cmp=window_cmp,
            profile=not _has(self._tables.profiles, window, granularity),
            drift=not _has(self._tables.drift, window, granularity, self._reference.name, window_cmp),
        )
        plans = [plan] if plan.profile or plan.drift else []
        return self._do(plans, granularity, leading_empty=False, done=None)

    @property
    def _profile_id(self) -> str:
        return f"profile@{self._granularity}"

    @property
    def _drift_id(self) -> str:
        return f"drift@{self._granularity}@{self._reference.key}"

    def _reader(self, version: int) -> WindowReader:
        return WindowReader(
            self._tables,
            self._store,
            self._sources,
            self._slicing,
            self._kinds,
            granularity=self._granularity,
            version=version,
            closed_before=self._clock.now() - self._lag,
        )

    def _do(
        self,
        plans: list[_Plan],
        granularity: str,
        *,
        leading_empty: bool,
        done: tuple[int | None, int | None] | None,
    ) -> DriftSummary:
        """``done``: how far profiles and drift are, by the tables; ``None`` where that is not kept."""
        started = self._clock.monotonic()
        version = self._tables.payload.version()
        if not plans or version is None:
            return self._summary([], granularity, 0, 0, None, started)
        reader = self._reader(version)
        if leading_empty:
            # What is before the first record is no window in which nothing happened.
            while plans and reader.of(plans[0].window).is_empty:
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
                current = reader.of(plan.window)
                records += current.rows
                self._warn_left_out(plan.window, current.left_out)
                if plan.profile:
                    profiles.append(
                        profile_rows(
                            current,
                            window=plan.window,
                            granularity=granularity,
                            payload_version=version,
                            kinds=self._kinds,
                        )
                    )
                if plan.drift:
                    drift.append(self._compared(reader, plan, granularity))
            end = int(plans[-1].window.end.timestamp())
            # Before what was calculated from them, so that a run that is cut off finds them again.
            self._store.write(reader.new, version, (f"sketches@{self._drift_id}", end) if done else None)
            ids = (self._profile_id, self._drift_id)
            after = (
                [None, None] if done is None else [{name: each} for name, each in zip(ids, done, strict=True)]
            )
            profile_count = _append(self._tables.profiles, profiles, after[0], end)
            drift_count = _append(self._tables.drift, drift, after[1], end)
            progress.update(to_version=version, scored=records, unscored_reasons={})
            report = self._write_report(reader, plans[-1], granularity, version)
        return self._summary(
            [plan.window for plan in plans], granularity, profile_count, drift_count, report, started
        )

    def _compared(self, reader: WindowReader, plan: _Plan, granularity: str) -> pl.DataFrame:
        compared = Compared(
            window=plan.window,
            window_cmp=plan.window_cmp,
            granularity=granularity,
            drift_type=self._reference.drift_type,
            reference=self._reference.name,
        )
        pairs = self._reference.pairs(reader, plan.window, plan.window_cmp) if plan.comparable else []
        return drift_rows(pairs, compared, kinds=self._kinds, min_rows=self._min_rows)

    def _warn_left_out(self, window: Window, left_out: Mapping[str, int]) -> None:
        for key, rows in left_out.items():
            logger.warning(
                "too many slices, the smallest are left out: endpoint=%s window=%s key=%s limit=%d records=%d",
                self._endpoint,
                window.start.isoformat(),
                key,
                self._slicing.limit,
                rows,
            )

    def _write_report(self, reader: WindowReader, plan: _Plan, granularity: str, version: int) -> Path | None:
        reference = plan.window_cmp
        if self._report is None or not plan.drift or not plan.comparable:
            return None
        if reference is None or reference == plan.window:
            return None
        frames = [
            sample_window(
                self._tables, window, rows=reader.of(window).rows, at_most=_REPORTED_ROWS, version=version
            )
            for window in (plan.window, reference)
        ]
        return self._report.write(
            *frames,
            endpoint=self._endpoint,
            window=plan.window,
            window_cmp=reference,
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


def _append(
    table: Table, frames: list[pl.DataFrame], after: Mapping[str, int | None] | None, end: int
) -> int:
    if not frames:
        return 0
    rows = pl.concat(frames)
    if after is None:
        if not rows.is_empty():
            table.append(rows)
        return rows.height
    # Also without a row: windows of which there is nothing to say are behind us, or a pause would be looked at for ever.
    table.append(rows, transactions=dict.fromkeys(after, end), after=after)
    return rows.height


def _has(
    table: Table,
    window: Window,
    granularity: str,
    reference: str | None = None,
    window_cmp: Window | None = None,
) -> bool:
    """Whether ``table`` has rows of exactly this window (pair), granularity and reference."""
    same = (pl.col("window").struct.field("end") == window.end) & (pl.col("granularity") == granularity)
    if reference is not None:
        same &= pl.col("reference") == reference
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
