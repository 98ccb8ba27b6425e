"""Rows for feedback tables, about records of an inference table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Any

import polars as pl

from collector.catalog import FEEDBACK_SCHEMA

_numbers = count()


def truth_rows(payload: pl.DataFrame, truths: Sequence[str | float | None], **columns: Any) -> pl.DataFrame:
    """A truth for each row of ``payload``, a minute after it: a word is a label, a number a value."""
    rows = [
        {
            "feedback_id": f"f{next(_numbers):06d}",
            "databricks_request_id": record["databricks_request_id"],
            "request_date": record["request_date"],
            "request_time": record["request_time"],
            "feedback_time": record["request_time"] + timedelta(minutes=1),
            "endpoint": "chat",
            "source": "api",
            "name": "ground_truth",
            "value": truth if isinstance(truth, float) else None,
            "label": truth if isinstance(truth, str) else None,
        }
        | columns
        for record, truth in zip(payload.iter_rows(named=True), truths, strict=True)
    ]
    schema = pl.DataFrame(FEEDBACK_SCHEMA.empty_table()).schema
    return pl.DataFrame(rows, schema={name: schema[name] for name in rows[0]})
