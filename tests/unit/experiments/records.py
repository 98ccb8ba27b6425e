"""Rows of inference, score and feedback tables as the collector and the evaluators write them, for the tests of this
package.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl

from collector.catalog import (
    FEEDBACK_SCHEMA,
    PAYLOAD_SCHEMA,
    SCORE_SCHEMA,
    Catalog,
    EndpointTables,
    TableName,
)
from experiments.experiment import Experiment, Variant

START = datetime(2026, 3, 1, tzinfo=UTC)
CHAMPION, CHALLENGER = Variant("champion", "smol", 50), Variant("challenger", "smol-hot", 50)

_numbers = count()


def experiment(**changes: Any) -> Experiment:
    """An A/B on endpoint ``chat``."""
    values: dict[str, Any] = {
        "name": "tone",
        "endpoint": "chat",
        "control": CHAMPION,
        "treatments": (CHALLENGER,),
        "primary_metric": "latency_ms",
        "secondary_metrics": ("success_rate",),
        "planned_units": 400,
    }
    return Experiment(**{**values, **changes})


def payload(unit: str | None, variant: str | None, **changes: Any) -> dict[str, Any]:
    """One good answer of ``variant`` to ``unit``, changed where named."""
    number = next(_numbers)
    row: dict[str, Any] = {
        "databricks_request_id": f"request-{number}",
        "request_time": START + timedelta(seconds=number % 80_000),
        "status_code": 200,
        "sampling_fraction": 1.0,
        "execution_duration_ms": 100,
        "endpoint": "chat",
        "served_entity": "smol",
        "api": "openai",
        "experiment": "tone",
        "variant": variant,
        "unit": unit,
        "phase": 0,
        "propensity": 0.5,
        "is_shadow": False,
        "is_stream": False,
        "output_tokens": 20,
        "client_disconnected": False,
        "attempts": 1,
        **changes,
    }
    return {**row, "request_date": row["request_time"].date()}


def score(
    record: dict[str, Any], value: float | None, evaluator: str = "perplexity", **changes: Any
) -> dict[str, Any]:
    """One score of a payload row."""
    return {
        "databricks_request_id": record["databricks_request_id"],
        "request_date": record["request_date"],
        "request_time": record["request_time"],
        "endpoint": "chat",
        "variant": record["variant"],
        "evaluator": evaluator,
        "target": "response",
        "score": value,
        "scored_at": START,
        **changes,
    }


def feedback(
    record: dict[str, Any], value: float | None, after_s: float = 60.0, name: str = "thumbs", **changes: Any
) -> dict[str, Any]:
    """One feedback on a payload row, some seconds after it."""
    return {
        "feedback_id": f"feedback-{next(_numbers)}",
        "databricks_request_id": record["databricks_request_id"],
        "request_date": record["request_date"],
        "request_time": record["request_time"],
        "feedback_time": record["request_time"] + timedelta(seconds=after_s),
        "endpoint": "chat",
        "source": "user",
        "name": name,
        "value": value,
        **changes,
    }


def payload_frame(rows: Sequence[dict[str, Any]]) -> pl.LazyFrame:
    """The rows with all columns of the inference table."""
    return _frame(rows, pl.DataFrame(PAYLOAD_SCHEMA.empty_table()))


def score_frame(rows: Sequence[dict[str, Any]]) -> pl.LazyFrame:
    """The rows with all columns of the score table."""
    return _frame(rows, pl.DataFrame(SCORE_SCHEMA.empty_table()))


def feedback_frame(rows: Sequence[dict[str, Any]]) -> pl.LazyFrame:
    """The rows with all columns of the feedback table."""
    return _frame(rows, pl.DataFrame(FEEDBACK_SCHEMA.empty_table()))


def tables(root: Path) -> EndpointTables:
    """Real Delta tables of endpoint ``chat`` under ``root``."""
    return Catalog(str(root), {"chat": TableName("main", "default", "chat")}).tables("chat")


def _frame(rows: Sequence[dict[str, Any]], empty: pl.DataFrame) -> pl.LazyFrame:
    named = {name for row in rows for name in row}
    known = {name: dtype for name, dtype in empty.schema.items() if name in named}
    assert named == set(known), f"no such column: {named - set(known)}"
    return pl.concat([empty, pl.DataFrame(rows, schema=known)], how="diagonal").lazy()
