"""Rows of the tables that selection follows beside payload and scores: feedback, drift, embeddings, shadows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from collector.catalog import EndpointTables
from collector.table import Table
from tests.relabel_cases import START, payload_row, score_row


def append_to(table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """One commit."""
    table.append(pa.Table.from_pylist(list(rows), schema=table.schema))


def said(number: int, prompt: str, answer: str, **values: Any) -> dict[str, Any]:
    """A row of the inference table with these texts, and no bodies."""
    texts = {"prompt_text": prompt, "response_text": answer}
    return payload_row(number, request=None, response=None, **{**texts, **values})


def shadow_row(number: int, of: int, answer: str, **values: Any) -> dict[str, Any]:
    """The shadow ``number`` of the record ``of``, a second after it."""
    moment = START + timedelta(seconds=of + 1)
    return payload_row(
        number,
        request_time=moment,
        response=None,
        response_text=answer,
        is_shadow=True,
        shadow_of=f"request-{of:06d}",
        served_entity="next",
        variant=None,
        **values,
    )


def shadow_score_row(number: int, of: int, score: float, **values: Any) -> dict[str, Any]:
    """A score of the shadow ``number`` of the record ``of``."""
    return score_row(number, score, request_time=START + timedelta(seconds=of + 1), **values)


def feedback_row(number: int, name: str, **values: Any) -> dict[str, Any]:
    """Feedback on the record ``number``, an hour after it."""
    moment = START + timedelta(seconds=number)
    return {
        "feedback_id": f"feedback-{number}-{name}",
        "databricks_request_id": f"request-{number:06d}",
        "request_date": moment.date(),
        "request_time": moment,
        "feedback_time": moment + timedelta(hours=1),
        "endpoint": "chat",
        "source": "user",
        "name": name,
        **values,
    }


def drift_row(
    start: datetime, column: str, p_value: float | None, effect: float, **values: Any
) -> dict[str, Any]:
    """A comparison of the hour from ``start`` with the one before it."""
    hour = timedelta(hours=1)
    return {
        "window": {"start": start, "end": start + hour},
        "window_cmp": {"start": start - hour, "end": start},
        "granularity": "1 hour",
        "drift_type": "CONSECUTIVE",
        "reference": "previous window",
        "column_name": column,
        "ks_test": None if p_value is None else {"statistic": effect, "pvalue": p_value},
        **values,
    }


def embedding_row(number: int, target: str, vector: Sequence[float], **values: Any) -> dict[str, Any]:
    """A vector of one side of the record ``number``."""
    moment = START + timedelta(seconds=number)
    return {
        "databricks_request_id": f"request-{number:06d}",
        "request_date": moment.date(),
        "request_time": moment,
        "endpoint": "chat",
        "target": target,
        "model": "minilm",
        "evaluator_version": "1",
        "vector": list(vector),
        "embedded_at": moment + timedelta(minutes=1),
        **values,
    }


def all_tables(tables: EndpointTables) -> list[Table]:
    """Those that selection follows."""
    return [tables.payload, tables.scores, tables.feedback, tables.drift]
