"""Records of feedback become rows of the feedback table: one for each part.

Invariant: the rows of a record are in one commit, in their order, and carry its worker and offset, so that what makes
records arrive exactly once holds for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from collector.feedback_record import Part, feedback_in
from collector.feedback_table import FEEDBACK_SCHEMA
from collector.inference_table import TIMESTAMP
from collector.record import UNROUTED, Record
from servelens.identifiers import time_us

SOURCE_USER = "user"


def feedback_rows(records: Sequence[Record], worker_id: str, offsets: Sequence[int]) -> pa.Table:
    """The rows of ``records``, which ``worker_id`` spooled at ``offsets``, with the columns of the feedback table.

    Raises one of :data:`~collector.normalize.UNFIT` when a record holds no feedback; :func:`feedback_rows` of one record
    at a time then tells which.
    """
    flat: list[tuple[Record, str | None, int, int, Part]] = []
    for record, offset in zip(records, offsets, strict=True):
        said = feedback_in(record)
        if not said.parts:
            raise ValueError("the feedback says nothing")
        flat += [(record, said.request_id, offset, number, part) for number, part in enumerate(said.parts)]
    arrived = pa.array([record.request_time_us for record, *_ in flat], pa.int64()).view(TIMESTAMP)
    about = pa.array(
        [record.request_time_us if name is None else time_us(name) for record, name, *_ in flat], pa.int64()
    ).view(TIMESTAMP)
    columns: dict[str, pa.Array[Any]] = {
        "feedback_id": _strings([record.request_id for record, *_ in flat]),
        "databricks_request_id": _strings([name for _, name, *_ in flat]),
        "request_date": about.cast(pa.date32()),
        "request_time": about,
        "feedback_time": arrived,
        "endpoint": _strings(
            [record.model if record.endpoint == UNROUTED else record.endpoint for record, *_ in flat]
        ),
        "source": pa.repeat(pa.scalar(SOURCE_USER), len(flat)),
        "source_id": _strings([record.unit for record, *_ in flat]),
        "name": _strings([part.name for *_, part in flat]),
        "value": pa.array([part.value for *_, part in flat], pa.float64()),
        "label": _strings([part.label for *_, part in flat]),
        "comment": _strings([part.comment for *_, part in flat]),
        "tags": pa.array(
            [list(record.tags.items()) if record.tags else None for record, *_ in flat],
            pa.map_(pa.string(), pa.string()),
        ),
        "worker_id": pa.repeat(pa.scalar(worker_id), len(flat)),
        "spool_offset": pa.array([offset for _, _, offset, *_ in flat], pa.int64()),
        "part": pa.array([number for _, _, _, number, _ in flat], pa.int32()),
        "requester": _strings([record.requester for record, *_ in flat]),
        "client_request_id": _strings([record.client_request_id for record, *_ in flat]),
    }
    return pa.Table.from_arrays([columns[name] for name in FEEDBACK_SCHEMA.names], schema=FEEDBACK_SCHEMA)


def _strings(values: Sequence[str | None]) -> pa.Array[Any]:
    return pa.array(values, pa.string())
