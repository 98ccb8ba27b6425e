"""Rows for inference and score tables, with columns as the collector writes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from collector.catalog import PAYLOAD_SCHEMA, SCORE_SCHEMA, Catalog, EndpointTables, TableName
from servelens.identifiers import RequestIds

ENDPOINT = "chat"
_ids = RequestIds()


def endpoint_tables(root: Path) -> EndpointTables:
    return Catalog(str(root), {ENDPOINT: TableName("main", "serving", "chat")}).tables(ENDPOINT)


def payload_rows(
    count: int, start: datetime, *, every: timedelta = timedelta(milliseconds=1), **columns: Any
) -> pl.DataFrame:
    """``count`` answered calls from ``start`` on; a list or array in ``columns`` is one value per row."""
    times = [start + index * every for index in range(count)]
    defaults: dict[str, Any] = {
        "databricks_request_id": [_ids.next() for _ in times],
        "request_date": [moment.date() for moment in times],
        "request_time": times,
        "status_code": 200,
        "sampling_fraction": 1.0,
        "execution_duration_ms": 100,
        "endpoint": ENDPOINT,
        "served_entity": "small",
        "model": "smollm2",
        "variant": None,
        "is_shadow": False,
        "is_stream": False,
        "prompt_text": "What is the capital of France?",
        "response_text": "Paris.",
        "finish_reason": "stop",
        "attempts": 1,
        "worker_id": "proxy-0-test",
        "spool_offset": list(range(count)),
    }
    values = {
        name: list(value) if hasattr(value, "__len__") and not isinstance(value, str) else [value] * count
        for name, value in (defaults | columns).items()
    }
    schema = pl.DataFrame(PAYLOAD_SCHEMA.empty_table()).schema
    return pl.DataFrame(values, schema={name: schema[name] for name in values})


def score_rows(
    payload: pl.DataFrame, evaluator: str, scores: Sequence[float | None], *, target: str = "response"
) -> pl.DataFrame:
    """A score for each row of ``payload``."""
    kept = payload.select(name for name in payload.columns if name in SCORE_SCHEMA.names and name != "model")
    return kept.with_columns(
        pl.lit(evaluator).alias("evaluator"),
        pl.lit(target).alias("target"),
        pl.Series("score", list(scores), dtype=pl.Float64),
    )
