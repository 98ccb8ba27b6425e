"""The sketches of any window, from those that are stored where there are any, else from the records.

A window longer than an hour is cut at the borders of days, hours and, where such are stored, five minutes; the pieces
are summed up, stored when they are whole days or hours, and merged. So a month is made of its days, these of their
hours, and at no time more than an hour of records is in memory. What is no whole five minutes at the ends of a window
is read from the records and not kept.

Invariant: only windows that are closed are stored, and none is read twice from the records while its sketch is there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import polars as pl

from collector.catalog import EndpointTables
from evaluators.drift.sketch_store import SketchStore
from evaluators.drift.sketches.sketch import SketchKinds
from evaluators.drift.slices import WHOLE, Slicing
from evaluators.drift.sources import REQUEST_ID, WindowSource
from evaluators.drift.window_data import observe
from evaluators.drift.window_sketches import SliceSketches, WindowSketches
from evaluators.drift.windows import Granularity, Window
from servelens.errors import Unavailable

LEVELS: Final = (Granularity(1, "day"), Granularity(1, "hour"), Granularity(5, "minute"))
_HOUR: Final = timedelta(hours=1)
_IN_MEMORY: Final = 8
_UNSTORED: Final = 64

Level: TypeAlias = tuple[Granularity, Window]


class WindowReader:
    """Windows of one endpoint at one version of its inference table; ``closed_before``: windows that end later are not
    stored. ``new`` has what was summed up since and is to be stored, by granularity and window; when it gets long it
    is stored at once.
    """

    def __init__(
        self,
        tables: EndpointTables,
        store: SketchStore,
        sources: Sequence[WindowSource],
        slicing: Slicing,
        kinds: SketchKinds,
        *,
        granularity: Granularity,
        version: int,
        closed_before: datetime,
    ) -> None:
        self._tables = tables
        self._store = store
        self._sources = sources
        self._slicing = slicing
        self.kinds = kinds
        self._granularity = granularity
        self._version = version
        self._closed_before = closed_before
        self._recent: OrderedDict[Window, WindowSketches] = OrderedDict()
        self.new: dict[Level, WindowSketches] = {}

    def of(self, window: Window) -> WindowSketches:
        """What is known of ``window``. Raises what the tables and the sources raise."""
        known = self._recent.pop(window, None)
        if known is None:
            level = self._level(window)
            known = self._found([window], level).get(window) if level is not None else None
            if known is None:
                known = self._made(window)
                self._keep(level, window, known)
        self._recent[window] = known
        if len(self._recent) > _IN_MEMORY:
            self._recent.popitem(last=False)
        return known

    def _found(self, windows: Sequence[Window], level: Granularity) -> dict[Window, WindowSketches]:
        fresh = {window: self.new[level, window] for window in windows if (level, window) in self.new}
        stored = self._store.read([window for window in windows if window not in fresh], level)
        return {**stored, **fresh}

    def _made(self, window: Window) -> WindowSketches:
        if window.length <= _HOUR:
            return self._of_five_minutes(window) or self._scanned(window)
        pieces = _pieces(window, [level for level in LEVELS if self._shorter(level, window)])
        sketches: dict[Window, WindowSketches] = {}
        for stored in LEVELS:
            sketches |= self._found([piece for piece, of in pieces if of == stored], stored)
        if not sketches and self._is_empty(window):
            return WindowSketches({WHOLE: SliceSketches()})
        for piece, level in pieces:
            if piece not in sketches:
                sketches[piece] = self._made(piece)
                if level is not None and level.containing(piece.start).length >= _HOUR:
                    self._keep(level, piece, sketches[piece])
        return WindowSketches.merged([sketches[piece] for piece, _ in pieces], self._slicing, self.kinds)

    def _of_five_minutes(self, window: Window) -> WindowSketches | None:
        """From the windows of five minutes that tile ``window``, when all of them are stored."""
        level = LEVELS[-1]
        pieces = _pieces(window, [level]) if self._shorter(level, window) else []
        windows = [piece for piece, of in pieces if of is not None]
        if not windows or len(windows) < len(pieces):
            return None
        found = self._found(windows, level)
        if len(found) < len(windows):
            return None
        return WindowSketches.merged([found[one] for one in windows], self._slicing, self.kinds)

    def _scanned(self, window: Window) -> WindowSketches:
        observation = observe(
            self._tables, window, sources=self._sources, slicing=self._slicing, version=self._version
        )
        return WindowSketches.of(observation, self._slicing, self.kinds)

    def _is_empty(self, window: Window) -> bool:
        """Whether neither a record nor a stored sketch is there: a look that spares those at all of its parts."""
        if self._store.has_records(window):
            return False
        records = self._tables.payload.scan(since=window.start, until=window.end, version=self._version)
        try:
            return records.select(REQUEST_ID).head(1).collect().is_empty()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Unavailable(f"the table cannot be read: {error}", field=self._tables.payload.uri) from error

    def _keep(self, level: Granularity | None, window: Window, sketches: WindowSketches) -> None:
        if level is not None and window.end <= self._closed_before:
            self.new[level, window] = sketches
            if len(self.new) >= _UNSTORED:
                self._store.write(self.new, self._version)
                self.new = {}

    def _level(self, window: Window) -> Granularity | None:
        """The granularity under which ``window`` is stored: its own, or that of a day or an hour."""
        for level in (self._granularity, *LEVELS):
            if level.containing(window.start) == window:
                return level
        return None

    def _shorter(self, level: Granularity, window: Window) -> bool:
        return level.containing(window.start).length < window.length


def _pieces(window: Window, levels: Sequence[Granularity]) -> list[tuple[Window, Granularity | None]]:
    """``window`` cut into the longest windows of ``levels`` (longest first) that lie in it, and what is left at its
    ends, which has no level."""
    pieces: list[tuple[Window, Granularity | None]] = []
    start = window.start
    while start < window.end:
        for level in levels:
            aligned = level.containing(start)
            if aligned.start == start and aligned.end <= window.end:
                pieces.append((aligned, level))
                break
        else:
            # Up to the next border of the finest level.
            end = min(levels[-1].containing(start).end, window.end) if levels else window.end
            pieces.append((Window(start, end), None))
        start = pieces[-1][0].end
    return pieces
