"""Scores over time, their distribution and labels, and what stayed unscored and why, for one endpoint and window."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from collector.catalog import Catalog
from dashboard.evaluator_notes import EvaluatorNote, note_of
from dashboard.queries import ARM, TableReader, collect, scan
from dashboard.view import View, Window

MOST_POINTS = 20_000
_MOST_LABELS = 500
_FEW = 8
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

    ``bins`` has arm, bin, scored, hits, low (25 %), median, high (75 %); ``points`` has arm and score, a random sample of
    :data:`MOST_POINTS` at the most; ``arms`` has arm, scored, unscored, hits, median, p90 and cost (null without one);
    ``labels`` has arm, label, count, the most frequent first; ``unscored`` has reason, count.

    ``hits`` count what ``share_of`` says; it is ``None`` where the scores are numbers and no share says more.
    """

    window: Window
    bins: pl.DataFrame
    points: pl.DataFrame
    arms: pl.DataFrame
    labels: pl.DataFrame
    unscored: pl.DataFrame
    share_of: str | None

    @property
    def scored(self) -> int:
        return int(self.arms["scored"].sum()) if self.arms.height else 0


class QualityQueries:
    """Reads score tables."""

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
            judged = name.evaluator.partition(".")[0] == "judge"
            columns = ["request_time", "evaluator", "target", "score", "label", "unscored_reason"]
            columns += ["details"] if judged else []
            rows = scan(table, window.since, window.until, columns, view.arms).filter(
                (pl.col("evaluator") == name.evaluator) & (pl.col("target") == name.target)
            )
            valid = rows.filter(pl.col("score").is_finite())
            bin_ = pl.col("request_time").dt.truncate(f"{int(window.bin.total_seconds())}s").alias("bin")
            score = pl.col("score")
            note = note_of(name.evaluator, name.target)
            hit = score == 1 if note.flagged is None else (pl.col("label") == note.flagged).fill_null(False)
            # What a judge has cost is in the details of each score, also of those that are no grade.
            cost = pl.col("details").str.json_path_match("$.cost").cast(pl.Float64, strict=False)
            costs = cost.drop_nulls()
            spent = pl.when(costs.len() > 0).then(costs.sum()) if judged else pl.lit(None, pl.Float64)
            bins, points, arms, labels, kinds, unscored = pl.collect_all(
                [
                    valid.group_by(ARM, bin_)
                    .agg(
                        pl.len().alias("scored"),
                        hit.sum().alias("hits"),
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
                        hit.filter(score.is_finite()).sum().alias("hits"),
                        spent.alias("cost"),
                        score.filter(score.is_finite()).median().alias("median"),
                        score.filter(score.is_finite()).quantile(0.9, "linear").alias("p90"),
                    )
                    .sort(ARM),
                    valid.filter(pl.col("label").is_not_null())
                    .group_by(ARM, "label")
                    .agg(pl.len().alias("count"))
                    .sort(["count", "label", ARM], descending=[True, False, False])
                    .head(_MOST_LABELS),
                    valid.select(
                        score.is_in([0.0, 1.0]).all().alias("binary"), score.n_unique().alias("distinct")
                    ),
                    rows.filter(pl.col("score").is_null() | score.is_nan())
                    .group_by(pl.col("unscored_reason").fill_null("no reason given").alias("reason"))
                    .agg(pl.len().alias("count"))
                    .sort("count", descending=True),
                ],
                engine="streaming",
            )
            if points.height > MOST_POINTS:
                points = points.sample(MOST_POINTS, seed=_SEED)
            return Scores(window, bins, points, arms, labels, unscored, _share_of(note, *kinds.row(0)))

        return self._reader.read([table], ("scores", view.endpoint, view.window, view.arms, name), compute)


def _share_of(note: EvaluatorNote, binary: bool | None, distinct: int) -> str | None:
    """What ``hits`` are, where their share says more than median and quartiles of ``distinct`` scores do."""
    if note.flagged is not None:
        return note.flagged if distinct <= _FEW else None
    return note.one if note.scale == "share" or (note.scale is None and binary and distinct) else None
