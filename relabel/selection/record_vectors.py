"""The vectors of records by which cases are compared: from the embeddings table where it has them, else of their texts.

A vector is two of the same length, of what was asked and of what was answered, so that either can be compared by itself. A
side that is not there has a vector that nothing else has. Vectors of different spaces are never compared.

Invariant: every record has a vector, whether an evaluator embeds this endpoint's records or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl

from collector.table import Table
from relabel.selection.case_writer import Flagged
from relabel.selection.sources.source import ID, collected
from relabel.selection.text_vectors import SPACE, text_vectors

Vector: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float32]]

_MAX_SPACE_LENGTH: Final = 255
_SLACK: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class RecordVector:
    """``vector`` has length 1: the two sides, of one length, behind each other."""

    space: str
    vector: Vector


def record_vectors(embeddings: Table, records: Sequence[Flagged]) -> dict[str, RecordVector]:
    """The vector of each of ``records``, by id. Raises :class:`~servelens.errors.Unavailable`."""
    found = _embedded(embeddings, records) if records and embeddings.version() is not None else {}
    rest = [record for record in records if record.databricks_request_id not in found]
    if rest:
        asked, answered = zip(*(texts_of(record) for record in rest), strict=True)
        requests, responses = _sides(asked), _sides(answered)
        for record, request, response in zip(rest, requests, responses, strict=True):
            found[record.databricks_request_id] = RecordVector(SPACE, _joined(request, response))
    return found


def texts_of(record: Flagged) -> tuple[str | None, str | None]:
    """What was asked last, without what the application says before it, and what was answered."""
    messages = record.conversation.messages
    answer = messages[-1] if record.conversation.answered else None
    before = messages[:-1] if answer is not None else messages
    asked = next((_text(each) for each in reversed(before) if each.get("role") == "user"), None)
    if not asked:
        asked = record.prompt_text or (_text(before[-1]) if before else None)
    return asked or None, (None if answer is None else _text(answer)) or record.response_text or None


def _embedded(embeddings: Table, records: Sequence[Flagged]) -> dict[str, RecordVector]:
    times = [record.request_time for record in records]
    rows = embeddings.scan(since=min(times) - _SLACK, until=max(times) + _SLACK).filter(
        pl.col(ID).is_in([record.databricks_request_id for record in records])
    )
    wanted = rows.select(ID, "target", "model", "evaluator_version", "vector", "embedded_at")
    frame = collected(wanted).drop_nulls([ID, "target", "vector"]).sort("embedded_at", ID)
    if frame.is_empty():
        return {}
    # Where several models embed the records, one of them is compared by: that of the newest vector here.
    model, version = frame.select("model", "evaluator_version").row(-1)
    same = frame.filter(
        pl.col("model").eq_missing(pl.lit(model)), pl.col("evaluator_version").eq_missing(pl.lit(version))
    )
    sides: dict[str, dict[str, Vector]] = {}
    for request_id, target, vector in same.select(ID, "target", "vector").iter_rows():
        sides.setdefault(request_id, {})[target] = np.asarray(vector, np.float32)
    found = {}
    for request_id, of_record in sides.items():
        whole = _whole(of_record)
        if whole is not None:
            named = f"{model} {version} {'+'.join(sorted(of_record))} {whole.size}"
            found[request_id] = RecordVector(_bounded(named), whole)
    return found


def _whole(sides: Mapping[str, Vector]) -> Vector | None:
    request, response = sides.get("request"), sides.get("response")
    given = [side for side in (request, response) if side is not None]
    if not given or len({side.size for side in given}) > 1:
        return None
    absent = _absent(given[0].size)
    return _joined(absent if request is None else request, absent if response is None else response)


def _sides(texts: Sequence[str | None]) -> list[Vector]:
    vectors = text_vectors([text or "" for text in texts])
    absent = _absent(vectors.shape[1])
    return [absent if text is None else vector for text, vector in zip(texts, vectors, strict=True)]


def _absent(size: int) -> Vector:
    return np.full(size, 1.0 / np.sqrt(size), np.float32)


def _joined(request: Vector, response: Vector) -> Vector:
    parts = []
    for side in (request, response):
        length = float(np.linalg.norm(side))
        parts.append(side / np.float32(length) if length > 0 else _absent(side.size))
    return (np.concatenate(parts) / np.float32(np.sqrt(2.0))).astype(np.float32)


def _bounded(space: str) -> str:
    if len(space) <= _MAX_SPACE_LENGTH:
        return space
    return f"{space[:190]} {hashlib.sha256(space.encode()).hexdigest()}"[:_MAX_SPACE_LENGTH]


def _text(message: Mapping[str, Any]) -> str | None:
    content = message.get("content")
    if isinstance(content, str):
        return content or None
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str)) or None
    calls = message.get("tool_calls") or message.get("function_call") or message.get("refusal")
    return None if calls is None else str(calls)
