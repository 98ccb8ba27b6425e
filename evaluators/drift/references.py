"""What a window is compared with: the window before it, the time before it, a fixed window, a fixed data set, or another
variant in the same window.

``drift_type`` is Databricks' word, which knows two: CONSECUTIVE for a reference that moves with the window, BASELINE
for one that is the same for all or stands for how it ought to be. The ``reference`` column says which it is exactly.

Invariant: a window is never compared with records of its own, other than those of another slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Protocol

from evaluators.drift.baseline_table import BaselineTable
from evaluators.drift.rows import DriftType, SlicePair, against_slice, same_slices
from evaluators.drift.slices import VARIANT, Slice
from evaluators.drift.window_reader import WindowReader
from evaluators.drift.window_sketches import WindowSketches
from evaluators.drift.windows import Granularity, Window


class Reference(Protocol):
    """``name`` is what the drift table's column ``reference`` says; ``key`` also says which one of its kind it is, in
    the application transaction of a comparison."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def drift_type(self) -> DriftType: ...

    def applies(self, window: Window) -> bool:
        """Whether ``window`` can be compared at all."""
        ...

    def window(self, window: Window, granularity: Granularity | None) -> Window | None:
        """The reference's window for ``window``, one of ``granularity`` (``None``: any length); ``None``: it has none."""
        ...

    def pairs(self, reader: WindowReader, window: Window, window_cmp: Window | None) -> Sequence[SlicePair]:
        """The slices to compare. Raises what reading raises."""
        ...


class _OfWindow:
    """References that are a window themselves."""

    def pairs(self, reader: WindowReader, window: Window, window_cmp: Window | None) -> Sequence[SlicePair]:
        if window_cmp is None:
            return []
        reference = reader.of(window_cmp)
        return same_slices(reader.of(window), reference)


@dataclass(frozen=True, slots=True)
class Previous(_OfWindow):
    """The window before; of another length where months differ."""

    name: ClassVar[str] = "previous"
    key: ClassVar[str] = "CONSECUTIVE"
    drift_type: ClassVar[DriftType] = DriftType.CONSECUTIVE

    def applies(self, window: Window) -> bool:
        return True

    def window(self, window: Window, granularity: Granularity | None) -> Window | None:
        return window.before() if granularity is None else granularity.before(window)


@dataclass(frozen=True, slots=True)
class Trailing(_OfWindow):
    """The time of ``length`` before the window: steadier than one window, and a slow drift shows up later."""

    length: timedelta
    described: str
    drift_type: ClassVar[DriftType] = DriftType.CONSECUTIVE

    @property
    def name(self) -> str:
        return f"trailing {self.described}"

    @property
    def key(self) -> str:
        return f"CONSECUTIVE@{self.described}"

    def applies(self, window: Window) -> bool:
        return True

    def window(self, window: Window, granularity: Granularity | None) -> Window | None:
        return Window(window.start - self.length, window.start)


@dataclass(frozen=True, slots=True)
class FixedWindow(_OfWindow):
    """A window of the endpoint's own past; windows that overlap it are not compared."""

    fixed: Window
    name: ClassVar[str] = "baseline window"
    drift_type: ClassVar[DriftType] = DriftType.BASELINE

    @property
    def key(self) -> str:
        start, end = (f"{moment:%Y%m%dT%H%M%S}" for moment in (self.fixed.start, self.fixed.end))
        return f"BASELINE@{start}_{end}"

    def applies(self, window: Window) -> bool:
        return not (window.start < self.fixed.end and self.fixed.start < window.end)

    def window(self, window: Window, granularity: Granularity | None) -> Window | None:
        return self.fixed


@dataclass(frozen=True, slots=True)
class FixedTable:
    """A data set, such as what a model was trained on; the window's columns of the same names are compared, all records
    together."""

    table: BaselineTable
    drift_type: ClassVar[DriftType] = DriftType.BASELINE

    @property
    def name(self) -> str:
        return f"table {self.table.uri}"

    @property
    def key(self) -> str:
        return f"BASELINE@{self.table.uri}"

    def applies(self, window: Window) -> bool:
        return True

    def window(self, window: Window, granularity: Granularity | None) -> Window | None:
        return None

    def pairs(self, reader: WindowReader, window: Window, window_cmp: Window | None) -> Sequence[SlicePair]:
        current = reader.of(window)
        return self.table.pairs(current, reader.kinds)


@dataclass(frozen=True, slots=True)
class OtherVariant:
    """Every other variant with ``variant``, in the same window; or served entity, which is what there is outside of
    experiments, by another ``divided_by``."""

    variant: str
    divided_by: str = VARIANT
    drift_type: ClassVar[DriftType] = DriftType.BASELINE

    @property
    def name(self) -> str:
        return f"{self.divided_by} {self.variant}"

    @property
    def key(self) -> str:
        return f"BASELINE@{self.divided_by}={self.variant}"

    def applies(self, window: Window) -> bool:
        return True

    def window(self, window: Window, granularity: Granularity | None) -> Window | None:
        return window

    def pairs(self, reader: WindowReader, window: Window, window_cmp: Window | None) -> Sequence[SlicePair]:
        current: WindowSketches = reader.of(window)
        return against_slice(current, Slice(self.divided_by, self.variant))
