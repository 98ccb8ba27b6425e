"""Reads what a case keeps of its record out of the endpoint's tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from collector.catalog import EndpointTables
from relabel.alternatives import shadow_answers
from relabel.case import Alternative, RecordedScore
from relabel.conversation import read_conversation, storable
from relabel.selection.case_writer import Flagged
from relabel.selection.sources.newest_scores import span
from relabel.selection.sources.source import ID, collected

_PAYLOAD_COLUMNS: Final = (
    ID,
    "request_time",
    "request",
    "response",
    "prompt_text",
    "response_text",
    "served_entity",
    "variant",
    "model",
    "unit",
    "session_id",
)
_SCORE_COLUMNS: Final = (ID, "evaluator", "target", "score", "label", "scored_at")


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Of the records that were asked for: those with something to look at (without reasons), those without, and those that
    the inference table does not have. ``payload_version`` is one at which the last are not there.
    """

    records: Mapping[str, Flagged] = field(default_factory=dict)
    without_text: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    payload_version: int | None = None


def read_snapshots(
    tables: EndpointTables,
    wanted: pl.DataFrame,
    scores: Mapping[str, Sequence[RecordedScore]],
) -> Snapshots:
    """Of the records of ``wanted`` (id and time), with what shadows have answered by now. Raises
    :class:`~servelens.errors.Unavailable`.
    """
    if wanted.is_empty():
        return Snapshots()
    version = tables.payload.version()  # before the look: what comes in between is looked for again
    since, until = span(wanted)
    ids = wanted[ID].to_list()
    payload = tables.payload.scan(since=since, until=until).filter(pl.col(ID).is_in(ids))
    rows = collected(payload.select(_PAYLOAD_COLUMNS))
    others = shadow_answers(tables, ids, since, until) if rows.height else {}
    records: dict[str, Flagged] = {}
    without_text: set[str] = set()
    for row in rows.iter_rows(named=True):
        request_id = row[ID]
        record = _record(row, scores.get(request_id, ()), others.get(request_id, ()))
        if record is None:
            without_text.add(request_id)
        else:
            records[request_id] = record
    without_text -= set(records)
    return Snapshots(records, frozenset(without_text), frozenset(ids) - set(records) - without_text, version)


def read_scores(tables: EndpointTables, wanted: pl.DataFrame) -> Mapping[str, Sequence[RecordedScore]]:
    """The newest score of each evaluator and side, of the records of ``wanted`` (id and time)."""
    if wanted.is_empty():
        return {}
    since, until = span(wanted)
    scored = tables.scores.scan(since=since, until=until).filter(pl.col(ID).is_in(wanted[ID].to_list()))
    rows = collected(scored.select(_SCORE_COLUMNS)).sort("evaluator", "target", "scored_at")
    found: dict[str, dict[tuple[str, str], RecordedScore]] = {}
    for request_id, evaluator, target, score, label, _ in rows.iter_rows():
        if score is not None and not math.isfinite(score):
            score = None  # JSON has no word for it
        found.setdefault(request_id, {})[evaluator, target] = RecordedScore(
            evaluator, target, score, storable(label)
        )
    return {request_id: tuple(of_record.values()) for request_id, of_record in found.items()}


def _record(
    row: Mapping[str, Any], scores: Sequence[RecordedScore], others: Sequence[Alternative]
) -> Flagged | None:
    conversation = read_conversation(
        row["request"], row["response"], row["prompt_text"], row["response_text"]
    )
    if conversation is None:
        return None
    return Flagged(
        databricks_request_id=row[ID],
        request_time=row["request_time"],
        served_entity=storable(row["served_entity"]),
        variant=storable(row["variant"]),
        model=storable(row["model"]),
        unit=storable(row["unit"]),
        session=storable(row["session_id"]),
        prompt_text=storable(row["prompt_text"]),
        response_text=storable(row["response_text"]),
        conversation=conversation,
        reasons=(),
        scores=scores,
        alternatives=others,
    )
