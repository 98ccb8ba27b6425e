"""How good a model was by the truths that arrived as feedback, over all records and by variant, for one endpoint and window.

Invariant: at most :data:`MOST_TRUTHS` truths are read, the newest of the window; which time they cover is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from collector.catalog import Catalog
from collector.table import Table
from dashboard.queries import TableReader, collect
from dashboard.view import View
from evaluators.drift.windows import Window
from evaluators.ground_truth.options import EVALUATOR
from evaluators.ground_truth.quality import Classification, Regression, classification, regression
from evaluators.ground_truth.quality_rows import MIN_ROWS, read_truths

MOST_TRUTHS: Final = 50_000
ALL: Final = "All"
_INSTANT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ArmQuality:
    """Quality of one variant, or of :data:`ALL` records. Both are ``None`` with fewer than ten truths of the task."""

    arm: str
    truths: int
    classes: Classification | None
    numbers: Regression | None


@dataclass(frozen=True, slots=True)
class ModelQuality:
    """The quality of all records and then of each variant; ``since`` is later than the view where there are too many truths."""

    evaluator: str
    since: datetime
    cut: bool
    arms: tuple[ArmQuality, ...]


class TruthQueries:
    """Reads ground-truth scores."""

    def __init__(self, catalog: Catalog, reader: TableReader) -> None:
        self._catalog = catalog
        self._reader = reader

    def quality(self, view: View, evaluator: str) -> ModelQuality | None:
        """By the truths of ``evaluator``, a name that :func:`is_truth` knows; ``None`` without any in the view."""
        table = self._catalog.tables(view.endpoint).scores

        def compute() -> ModelQuality | None:
            since, cut = _since(table, view, evaluator)
            truths = read_truths(table, Window(since, view.window.until), evaluator=evaluator)
            known = truths.drop_nulls(["predicted", "expected"])
            if view.arms:
                known = known.filter(pl.col("variant").is_in(list(view.arms)))
            if known.is_empty():
                return None
            arms = [_quality(ALL, known)]
            for variant in known["variant"].drop_nulls().unique().sort():
                arms.append(_quality(variant, known.filter(pl.col("variant") == variant)))
            return ModelQuality(evaluator, since, cut, tuple(arms))

        return self._reader.read(
            [table], ("truths", view.endpoint, view.window, view.arms, evaluator), compute
        )


def is_truth(evaluator: str) -> bool:
    """Whether its scores compare an answer with a known truth."""
    return evaluator.partition(".")[0] == EVALUATOR


def _since(table: Table, view: View, evaluator: str) -> tuple[datetime, bool]:
    times = collect(
        table.scan(since=view.window.since, until=view.window.until)
        .filter((pl.col("evaluator") == evaluator) & pl.col("score").is_not_null())
        .select(pl.col("request_time").top_k(MOST_TRUTHS))
    )["request_time"]
    if len(times) < MOST_TRUTHS:
        return view.window.since, False
    oldest = times.min()
    assert isinstance(oldest, datetime), "there are as many as were asked for"
    # A window has a length, also when all truths are of its last moment.
    return min(oldest, view.window.until - _INSTANT), True


def _quality(arm: str, known: pl.DataFrame) -> ArmQuality:
    classes = known.filter(pl.col("task") == "classification")
    numbers = known.filter(pl.col("task") == "regression").select(
        pl.col("predicted", "expected").cast(pl.Float64)
    )
    return ArmQuality(
        arm,
        known.height,
        classification(classes["predicted"].to_list(), classes["expected"].to_list())
        if classes.height >= MIN_ROWS
        else None,
        regression(numbers["predicted"].to_list(), numbers["expected"].to_list())
        if numbers.height >= MIN_ROWS
        else None,
    )
