"""The Evidently report of two windows that somebody has chosen, of all records or of one slice.

Invariant: memory is bounded, however long the windows: of those with more than ``at_most`` records short times are read
that are spread evenly over them, one after the other, and of a slice about ``at_most`` records are kept. The table is
read at one version.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl

from collector.catalog import Catalog, EndpointTables
from evaluators.drift.payload_features import PayloadFeatures
from evaluators.drift.report import ReportWriter
from evaluators.drift.slices import SLICE_COLUMN, UNSLICED, WHOLE, Slice, Slicing
from evaluators.drift.sources import REQUEST_ID
from evaluators.drift.window_data import PayloadColumns, ScoreColumns, observe
from evaluators.drift.windows import Window
from servelens.errors import Invalid, Missing, Unavailable

AT_MOST: Final = 20_000
_TIMES: Final = 24
_MOST_TIMES: Final = 500
_SOURCES: Final = (PayloadColumns(), ScoreColumns(), PayloadFeatures())
_CHOSEN: Final = "chosen"


@dataclass(frozen=True, slots=True)
class PairRequest:
    """Which two windows of which endpoint, and which part of the traffic."""

    endpoint: str
    window: Window
    against: Window
    part: Slice = WHOLE

    @property
    def described(self) -> str:
        """What is chosen beside the endpoint and the window."""
        then = f"against {self.against.start:%Y%m%dT%H%M%S}-{self.against.end:%Y%m%dT%H%M%S}"
        return then if self.part == WHOLE else f"{self.part.key}={self.part.value} {then}"


class PairReports:
    """Writes the reports of chosen pairs to where the console lists them."""

    def __init__(self, catalog: Catalog, writer: ReportWriter, *, at_most: int = AT_MOST) -> None:
        self._catalog = catalog
        self._writer = writer
        self._at_most = at_most

    def check(self, request: PairRequest) -> EndpointTables:
        """The endpoint's tables. Raises :class:`~servelens.errors.Missing` when there is no such endpoint, and
        :class:`~servelens.errors.Invalid` when records cannot be divided so, or both windows are the same."""
        if request.window == request.against:
            raise Invalid("is the window itself", field="against", fix="Name another window.")
        _slicing(request.part)
        return self._catalog.tables(request.endpoint)

    def write(self, request: PairRequest, output: Path | None = None) -> Path:
        """The report's path. Raises what :meth:`check` raises, :class:`~servelens.errors.Missing` when the window has no
        record, and :class:`~servelens.errors.Unavailable` when tables or Evidently fail.
        """
        tables = self.check(request)
        version = tables.payload.version()
        current, reference = (
            self._sample(tables, window, request.part, version)
            for window in (request.window, request.against)
        )
        path = self._writer.write(
            current,
            reference,
            endpoint=request.endpoint,
            window=request.window,
            window_cmp=request.against,
            granularity=_CHOSEN,
            about=request.described,
            output=output,
        )
        if path is None:
            of = "" if request.part == WHOLE else f" with {request.part.key}={request.part.value}"
            raise Missing(
                f"there is no record{of} in it", field="window", fix="Choose a time that has traffic."
            )
        return path

    def _sample(
        self, tables: EndpointTables, window: Window, part: Slice, version: int | None
    ) -> pl.DataFrame:
        slicing = _slicing(part)
        records = tables.payload.scan(since=window.start, until=window.end, version=version)
        here = pl.len() if part == WHOLE else (slicing.expressions()[0] == part.value).sum()
        try:
            counts = records.select(pl.len().alias("all"), here.alias("here")).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Unavailable(f"the table cannot be read: {error}", field=tables.payload.uri) from error
        total, chosen = counts.row(0)
        pieces = [window]
        if total > self._at_most:
            times = min(_MOST_TIMES, max(_TIMES, total // self._at_most))
            pieces = _spread(window, times, min(1.0, self._at_most / (chosen or 1)))
        parts = []
        for piece in pieces:
            frame = observe(tables, piece, sources=_SOURCES, slicing=slicing, version=version).frame
            if part != WHOLE:
                frame = frame.filter(pl.col(SLICE_COLUMN + str(part.key)) == part.value)
            parts.append(frame.drop(pl.selectors.starts_with(SLICE_COLUMN), REQUEST_ID))
        return pl.concat(parts, how="diagonal_relaxed")


def chosen_slice(text: str | None) -> Slice:
    """Read ``variant=challenger`` or ``tags.team=blue``; ``None`` is all of the traffic."""
    if text is None:
        return WHOLE
    key, found, value = text.partition("=")
    if not found or not key.strip() or not value.strip():
        raise Invalid(f"{text!r} names no slice", field="slice", fix="Write it as variant=challenger.")
    return Slice(key.strip(), value.strip())


def chosen_window(text: str, field: str) -> Window:
    """Read an interval of ISO 8601 with zones, ``2026-03-04T10:00Z/2026-03-04T11:00Z``."""
    fix = "Write start and end with a zone: 2026-03-04T10:00Z/2026-03-04T11:00Z."
    start, found, end = text.partition("/")
    try:
        if not found:
            raise ValueError("there is no /")
        moments = [datetime.fromisoformat(each.strip()) for each in (start, end)]
    except ValueError as error:
        raise Invalid(f"{text!r} is no window: {error}", field=field, fix=fix) from error
    if any(moment.tzinfo is None for moment in moments):
        raise Invalid(f"{text!r} has no zone", field=field, fix=fix)
    if not moments[0] < moments[1]:
        raise Invalid(f"{text!r} ends before it starts", field=field, fix=fix)
    return Window(*moments)


def _slicing(part: Slice) -> Slicing:
    return UNSLICED if part.key is None else Slicing((part.key,))


def _spread(window: Window, times: int, share: float) -> list[Window]:
    """So many parts of ``window`` that make up ``share`` of it."""
    step = window.length / times
    starts = [window.start + index * step for index in range(times)]
    return [Window(start, start + step * share) for start in starts]
