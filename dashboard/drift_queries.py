"""Drift of one endpoint in a window, by granularity, reference and slice: what there is to choose from, and what was chosen.

Invariant: significance is corrected for what is looked at together, which is one granularity, one reference and one slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import polars as pl

from collector.catalog import Catalog
from dashboard.queries import TableReader, collect
from dashboard.view import View
from evaluators.drift.verdict import drifted

MOST_WINDOWS: Final = 48
WHOLE: Final = "all traffic"
_PREVIOUS: Final = "previous"
_BASELINE: Final = "baseline window"


@dataclass(frozen=True, slots=True)
class DriftChoice:
    """What a viewer has chosen; ``None``, or what there is not, is the first that there is.

    ``slice`` is :data:`WHOLE` or ``key=value``.
    """

    granularity: str | None = None
    reference: str | None = None
    slice: str | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """Verdicts of :func:`evaluators.drift.verdict.drifted` for one choice, :data:`MOST_WINDOWS` windows at the most.

    ``granularity`` is ``None`` when nothing was compared. The choices beside it are those that have rows: the finest
    granularity first, references and slices by name, all traffic before its slices.
    """

    rows: pl.DataFrame
    granularity: str | None
    granularities: tuple[str, ...] = ()
    reference: str = ""
    references: tuple[str, ...] = ()
    slice: str = WHOLE
    slices: tuple[str, ...] = ()

    def windows(self) -> list[datetime]:
        """The ends of the windows, the newest first."""
        if self.rows.is_empty():
            return []
        ends: list[datetime] = (
            self.rows["window"].struct.field("end").unique().sort(descending=True).to_list()
        )
        return ends

    def of_window(self, end: datetime) -> pl.DataFrame:
        """The verdicts of the window that ends at ``end``: what drifted first, then by effect."""
        mine = self.rows.filter(pl.col("window").struct.field("end") == end)
        return mine.sort(
            pl.col("drifted").fill_null(False),
            pl.col("effect").fill_null(-1.0),
            "column_name",
            descending=[True, True, False],
        )


class DriftQueries:
    """Reads drift tables."""

    def __init__(self, catalog: Catalog, reader: TableReader) -> None:
        self._catalog = catalog
        self._reader = reader

    def drift(self, view: View, choice: DriftChoice = DriftChoice()) -> Drift:
        """Drift for the windows in the view."""
        table = self._catalog.tables(view.endpoint).drift

        def compute() -> Drift:
            rows = collect(
                table.scan(since=view.window.since - view.window.bin, until=view.window.until).with_columns(
                    _reference(), _slice()
                )
            )
            granularities = _by_width(rows)
            if not granularities:
                return Drift(pl.DataFrame(), None)
            granularity = _chosen(choice.granularity, granularities)
            rows = rows.filter(pl.col("granularity") == granularity)
            references = _names(rows["reference"], first=_PREVIOUS)
            reference = _chosen(choice.reference, references)
            rows = rows.filter(pl.col("reference") == reference)
            slices = _names(rows["_slice"], first=WHOLE)
            part = _chosen(choice.slice, slices)
            rows = rows.filter(pl.col("_slice") == part).drop("_slice")
            end = pl.col("window").struct.field("end")
            ends = rows.select(end)["end"].unique().sort(descending=True).head(MOST_WINDOWS)
            # A window may have been compared twice; the last comparison counts.
            latest = rows.filter(end.is_in(ends.implode())).unique(
                ["window", "column_name"], keep="last", maintain_order=True
            )
            return Drift(
                drifted(latest),
                granularity,
                tuple(granularities),
                reference,
                tuple(references),
                part,
                tuple(slices),
            )

        return self._reader.read([table], ("drift", view.endpoint, view.window, choice), compute)


def _reference() -> pl.Expr:
    """Rows of before there was the column have the kind of reference only."""
    of_kind = pl.when(pl.col("drift_type") == "BASELINE").then(pl.lit(_BASELINE)).otherwise(pl.lit(_PREVIOUS))
    return pl.coalesce("reference", of_kind).alias("reference")


def _slice() -> pl.Expr:
    named = pl.concat_str("slice_key", pl.lit("="), "slice_value")
    return pl.coalesce(named, pl.lit(WHOLE)).alias("_slice")


def _chosen(wanted: str | None, found: Sequence[str]) -> str:
    return wanted if wanted is not None and wanted in found else found[0]


def _names(column: pl.Series, *, first: str) -> list[str]:
    names: list[str] = column.unique().to_list()
    return sorted(names, key=lambda name: (name != first, name))


def _by_width(rows: pl.DataFrame) -> list[str]:
    if not rows.height:
        return []
    width = (
        (pl.col("window").struct.field("end") - pl.col("window").struct.field("start")).min().alias("width")
    )
    count = pl.len().alias("rows")
    ordered = rows.group_by("granularity").agg(width, count).sort(["width", "rows"], descending=[False, True])
    names: list[Any] = ordered["granularity"].to_list()
    # Looks that somebody asked for say "last …"; the regular windows come first.
    return sorted((str(name) for name in names), key=lambda name: name.startswith("last "))


def reference_words(reference: str) -> str:
    """What a window was compared with, in words that go on after "compared with"."""
    kind, _, which = reference.partition(" ")
    match kind:
        case "previous":
            return "the window before it"
        case "trailing":
            return f"the {which} before it"
        case "baseline":
            return "one fixed window of the past"
        case "table":
            return f"the data set {which}"
        case "variant":
            return f"variant {which} in the same window"
        case _:
            return reference


def slice_words(part: str) -> str:
    """A slice as a page names it."""
    return "All traffic" if part == WHOLE else part.replace("=", ": ", 1)
