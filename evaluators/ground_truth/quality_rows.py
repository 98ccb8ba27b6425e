"""The quality of a model in a window, as columns of the profile table, overall and per variant.

The columns are those of Databricks' profile metrics table for inference logs
(https://docs.databricks.com/aws/en/data-quality-monitoring/data-profiling/monitor-output); the intervals are ours. They are
computed from rows of the scores table: of each record the row with the newest ``scored_at`` counts, so a corrected truth
replaces the one before. Invariant: with fewer than ``min_rows`` known truths a measure is null, never zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import polars as pl

from collector.profile_tables import PROFILE_SCHEMA
from collector.table import Table
from evaluators.drift.windows import Window
from evaluators.ground_truth.options import EVALUATOR
from evaluators.ground_truth.quality import PerClass, classification, regression

MIN_ROWS: Final = 10
MONITOR_VERSION: Final = 1
_CLASSES: Final = 100
_CELLS: Final = 1_000
_ID: Final = "databricks_request_id"


def read_truths(scores: Table, window: Window, *, evaluator: str = EVALUATOR) -> pl.DataFrame:
    """``variant``, ``task``, ``predicted`` and ``expected`` (as text) of the records of ``window`` whose answer was compared
    with a truth; the newest of each. Raises what reading a table raises.
    """
    rows = scores.scan(since=window.start, until=window.end).filter(pl.col("evaluator") == evaluator)
    newest = (
        rows.select(_ID, "variant", "score", "details", "scored_at")
        # What waits for its record has no score, and is older than what came of it within one tick of the clock.
        .sort("scored_at", pl.col("score").is_not_null())
        .unique(_ID, keep="last")
        .filter(pl.col("score").is_not_null())
        .collect()
    )
    details = [json.loads(text) for text in newest["details"]]
    columns: dict[str, list[Any]] = {
        name: [each.get(name) for each in details] for name in ("task", "predicted", "expected")
    }
    return newest.select("variant").with_columns(
        pl.Series("task", columns["task"], dtype=pl.String),
        *(
            pl.Series(
                name, [None if value is None else str(value) for value in columns[name]], dtype=pl.String
            )
            for name in ("predicted", "expected")
        ),
    )


def model_quality(truths: pl.DataFrame, *, min_rows: int = MIN_ROWS) -> dict[str, Any]:
    """The quality columns of one profile row for a frame of :func:`read_truths`; those that are not determined are absent."""
    known = truths.drop_nulls(["predicted", "expected"])
    found: dict[str, Any] = {}
    classes = known.filter(pl.col("task") == "classification")
    if len(classes) >= max(min_rows, 1):
        found |= _classification(classes)
    numbers = known.filter(pl.col("task") == "regression")
    if len(numbers) >= max(min_rows, 1):
        found |= _regression(numbers)
    return found


def quality_rows(
    truths: pl.DataFrame,
    *,
    window: Window,
    granularity: str,
    version: int | None,
    evaluator: str = EVALUATOR,
    min_rows: int = MIN_ROWS,
) -> pl.DataFrame:
    """Rows with exactly the columns of ``PROFILE_SCHEMA``: overall, and for each variant.

    ``column_name`` is the evaluator's, ``count`` the number of known truths, ``version`` that of the scores table.
    """
    slices: list[tuple[str | None, str | None, pl.DataFrame]] = [(None, None, truths)]
    for variant in truths["variant"].drop_nulls().unique().sort():
        slices.append(("variant", variant, truths.filter(pl.col("variant") == variant)))
    rows = [
        {
            "window": {"start": window.start, "end": window.end},
            "log_type": "INPUT",
            "logging_table_commit_version": version,
            "monitor_version": MONITOR_VERSION,
            "granularity": granularity,
            "slice_key": key,
            "slice_value": value,
            "column_name": evaluator,
            "count": len(some),
        }
        | model_quality(some, min_rows=min_rows)
        for key, value, some in slices
    ]
    empty = pl.DataFrame(PROFILE_SCHEMA.empty_table())
    return pl.DataFrame(
        [{name: row.get(name) for name in PROFILE_SCHEMA.names} for row in rows], schema=empty.schema
    )


def _classification(truths: pl.DataFrame) -> dict[str, Any]:
    quality = classification(truths["predicted"].to_list(), truths["expected"].to_list())
    assert quality is not None
    frequent = truths["expected"].value_counts(sort=True)["expected"].to_list()
    return {
        "accuracy_score": quality.accuracy,
        "accuracy_interval": asdict(quality.accuracy_interval),
        "confusion_matrix": [asdict(cell) for cell in quality.confusion[:_CELLS]],
        "precision": _per_class(quality.precision, frequent),
        "recall": _per_class(quality.recall, frequent),
        "f1_score": _per_class(quality.f1, frequent),
        "false_positive_rate": _per_class(quality.false_positive_rate, frequent),
    }


def _per_class(measure: PerClass, frequent: list[str]) -> Mapping[str, Any]:
    """The averages are over all classes; by class the most frequent are told, when there are very many."""
    told = frequent[:_CLASSES] if len(measure.one_vs_all) > _CLASSES else sorted(measure.one_vs_all)
    return {
        "one_vs_all": {name: measure.one_vs_all[name] for name in told},
        "macro": measure.macro,
        "weighted": measure.weighted,
    }


def _regression(truths: pl.DataFrame) -> dict[str, Any]:
    numbers = truths.select(pl.col("predicted", "expected").cast(pl.Float64))
    quality = regression(numbers["predicted"].to_list(), numbers["expected"].to_list())
    assert quality is not None
    interval = quality.mae_interval
    return {
        "mean_squared_error": quality.mse,
        "root_mean_squared_error": quality.rmse,
        "mean_average_error": quality.mae,
        "mean_average_error_interval": None if interval is None else asdict(interval),
        "mean_absolute_percentage_error": quality.mape,
        "r2_score": quality.r2,
    }
