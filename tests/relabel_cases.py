"""Cases for tests of the relabeling queue: flagged records, and rows of the tables that selection reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from collector.catalog import Catalog, EndpointTables, TableName
from relabel.case import Reason, ReasonKind
from relabel.conversation import Conversation
from relabel.selection.case_writer import Flagged, store
from servelens.database import Database

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def score_reason(evaluator: str, score: float, priority: int = 0, *, target: str = "response") -> Reason:
    """A score over 0.5."""
    return Reason(
        rule=f"{evaluator} {target} above",
        kind=ReasonKind.SCORE,
        priority=priority,
        evaluator=evaluator,
        target=target,
        score=score,
        direction="above",
        threshold=0.5,
    )


def flagged(
    number: int,
    *,
    priority: int = 0,
    messages: list[dict[str, Any]] | None = None,
    answered: bool = True,
    tools: list[dict[str, Any]] | None = None,
    evaluator: str = "toxicity",
    request_id: str | None = None,
) -> Flagged:
    """A flagged record that differs from those of other numbers."""
    if messages is None:
        messages = [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": f"answer {number}"},
        ]
    return Flagged(
        databricks_request_id=request_id or f"request-{number:06d}",
        request_time=START + timedelta(seconds=number),
        served_entity="champion",
        variant="control",
        model="smollm2",
        prompt_text=f"question {number}",
        response_text=f"answer {number}",
        conversation=Conversation(messages, answered, tools),
        reasons=(score_reason(evaluator, 0.9, priority),),
        scores=(),
    )


def add_cases(database: Database, records: Sequence[Flagged], *, endpoint: str = "chat") -> int:
    """Store ``records`` as selection does; the number of new cases. Ids are 1, 2, … in a new database."""
    with database.session() as session:
        return len(store(session, endpoint, records, {}, START).new)


def endpoint_tables(root: str, endpoint: str = "chat") -> EndpointTables:
    """The (not yet existing) Delta tables of an endpoint under ``root``."""
    return Catalog(root, {endpoint: TableName("main", "default", endpoint)}).tables(endpoint)


def payload_row(number: int, **values: Any) -> dict[str, Any]:
    """A row of the inference table: a chat with one question; ``values`` replace columns."""
    moment = START + timedelta(seconds=number)
    prompt, answer = f"question {number}", f"answer {number}"
    row: dict[str, Any] = {
        "databricks_request_id": f"request-{number:06d}",
        "request_date": moment.date(),
        "request_time": moment,
        "status_code": 200,
        "request": json.dumps({"model": "chat", "messages": [{"role": "user", "content": prompt}]}),
        "response": json.dumps({"choices": [{"message": {"role": "assistant", "content": answer}}]}),
        "endpoint": "chat",
        "served_entity": "champion",
        "model": "smollm2",
        "variant": "control",
        "prompt_text": prompt,
        "response_text": answer,
    }
    return {**row, **values}


def score_row(number: int, score: float | None, **values: Any) -> dict[str, Any]:
    """A row of the scores table: toxicity of the response; ``values`` replace columns."""
    moment = START + timedelta(seconds=number)
    row: dict[str, Any] = {
        "databricks_request_id": f"request-{number:06d}",
        "request_date": moment.date(),
        "request_time": moment,
        "endpoint": "chat",
        "evaluator": "toxicity",
        "target": "response",
        "score": score,
        "scored_at": moment + timedelta(minutes=1),
    }
    return {**row, **values}


def append_rows(
    tables: EndpointTables, payload: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]]
) -> None:
    """One commit to the inference table and one to the scores table, where there are rows."""
    for table, rows in ((tables.payload, payload), (tables.scores, scores)):
        if rows:
            schema = pl.DataFrame(table.schema.empty_table()).schema
            columns = {name: kind for name, kind in schema.items() if any(name in row for row in rows)}
            table.append(pl.DataFrame(list(rows), schema=columns))
