"""Scores over time, their distribution, what stayed unscored and why, and drift, for one endpoint and window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from collector.catalog import Catalog
from dashboard.queries import ARM, TableReader, collect, scan
from dashboard.view import View, Window
from evaluators.drift.verdict import drifted

MOST_POINTS = 20_000
_MOST_WINDOWS = 48
_SEED = 11


@dataclass(frozen=True, slots=True)
class EvaluatorName:
    """An evaluator and what it looks at."""

    evaluator: str
    target: str

    @property
    def key(self) -> str:
        return f"{self.evaluator}@{self.target}"


@dataclass(frozen=True, slots=True)
class Scores:
    """One evaluator's scores in a window.

    ``bins`` has arm, bin, scored, low (25 %), median, high (75 %); ``points`` has arm and score, a random sample of
    :data:`MOST_POINTS` at the most; ``arms`` has arm, scored, unscored, median, p90; ``unscored`` has reason, count.
    """

    window: Window
    bins: pl.DataFrame
    points: pl.DataFrame
    arms: pl.DataFrame
    unscored: pl.DataFrame

    @property
    def scored(self) -> int:
        return int(self.arms["scored"].sum()) if self.arms.height else 0


@dataclass(frozen=True, slots=True)
class Drift:
    """Verdicts of :func:`evaluators.drift.verdict.drifted` for one granularity, with the ends of their windows.

    ``others`` are the granularities that have rows too.
    """

    rows: pl.DataFrame
    granularity: str | None
    others: tuple[str, ...]


class QualityQueries:
    """Reads score and drift tables."""

    def __init__(self, catalog: Catalog, reader: TableReader) -> None:
        self._catalog = catalog
        self._reader = reader

    def evaluators(self, view: View) -> tuple[EvaluatorName, ...]:
        """Who scored something in the view's window."""
        table = self._catalog.tables(view.endpoint).scores

        def compute() -> tuple[EvaluatorName, ...]:
            rows = (
                table.scan(since=view.window.since, until=view.window.until)
                .select("evaluator", "target")
                .unique()
            )
            return tuple(EvaluatorName(*row) for row in collect(rows).sort("evaluator", "target").iter_rows())

        return self._reader.read([table], ("evaluators", view.endpoint, view.window), compute)

    def exists(self, endpoint: str) -> bool:
        """Whether anything of the endpoint was ever scored."""
        return self._reader.version(self._catalog.tables(endpoint).scores) is not None

    def scores(self, view: View, name: EvaluatorName) -> Scores:
        """One evaluator's scores in the view's window."""
        table = self._catalog.tables(view.endpoint).scores

        def compute() -> Scores:
            window = view.window
            columns = ("request_time", "evaluator", "target", "score", "unscored_reason")
            rows = scan(table, window.since, window.until, columns, view.arms).filter(
                (pl.col("evaluator") == name.evaluator) & (pl.col("target") == name.target)
            )
            valid = rows.filter(pl.col("score").is_finite())
            bin_ = pl.col("request_time").dt.truncate(f"{int(window.bin.total_seconds())}s").alias("bin")
            score = pl.col("score")
            bins, points, arms, unscored = pl.collect_all(
                [
                    valid.group_by(ARM, bin_)
                    .agg(
                        pl.len().alias("scored"),
                        score.quantile(0.25, "linear").alias("low"),
                        score.median().alias("median"),
                        score.quantile(0.75, "linear").alias("high"),
                    )
                    .sort(ARM, "bin"),
                    valid.select(ARM, "score"),
                    rows.group_by(ARM)
                    .agg(
                        score.is_finite().sum().alias("scored"),
                        (~score.is_finite().fill_null(False)).sum().alias("unscored"),
                        score.filter(score.is_finite()).median().alias("median"),
                        score.filter(score.is_finite()).quantile(0.9, "linear").alias("p90"),
                    )
                    .sort(ARM),
                    rows.filter(pl.col("score").is_null() | score.is_nan())
                    .group_by(pl.col("unscored_reason").fill_null("no reason given").alias("reason"))
                    .agg(pl.len().alias("count"))
                    .sort("count", descending=True),
                ],
                engine="streaming",
            )
            if points.height > MOST_POINTS:
                points = points.sample(MOST_POINTS, seed=_SEED)
            return Scores(window, bins, points, arms, unscored)

        return self._reader.read([table], ("scores", view.endpoint, view.window, view.arms, name), compute)

    def drift(self, view: View, granularity: str | None) -> Drift:
        """Drift of the unsliced columns for the windows in the view, 48 at the most; the finest granularity by default."""
        table = self._catalog.tables(view.endpoint).drift

        def compute() -> Drift:
            rows = collect(
                table.scan(since=view.window.since - view.window.bin, until=view.window.until).filter(
                    pl.col("slice_key").is_null()
                )
            )
            found = _by_width(rows)
            chosen = granularity if granularity in found else (found[0] if found else None)
            if chosen is None:
                return Drift(pl.DataFrame(), None, ())
            mine = rows.filter(pl.col("granularity") == chosen)
            ends: Sequence[datetime] = (
                mine["window"].struct.field("end").unique().sort(descending=True).to_list()
            )
            kept = mine.filter(pl.col("window").struct.field("end").is_in(list(ends[:_MOST_WINDOWS])))
            verdicts = drifted(kept)
            # A window may have been compared twice; the last verdict counts.
            latest = verdicts.unique(["window", "column_name"], keep="last", maintain_order=True)
            return Drift(latest, chosen, tuple(found))

        return self._reader.read([table], ("drift", view.endpoint, view.window, granularity), compute)


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
