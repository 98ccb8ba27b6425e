"""Columns of ``<prefix>_feedback``: labels and feedback that arrive after the answer, joined by request id.

``request_date`` and ``request_time`` are those of the request that the feedback is about (the request id
holds them), so that a join prunes both tables alike; ``feedback_time`` is when the feedback arrived.
``source`` says who gave it (``user``, ``annotator``, ``api``); a number goes to ``value``, a word to
``label``, a text to ``comment``. Of the rows of one request, ``name`` and ``source_id`` the newest counts: people change
their mind, and apps send twice.

A feedback has a row for each of its parts, numbered by ``part`` from 0, which share ``feedback_id``, ``worker_id`` and
``spool_offset``; the last two are null where it did not come through a spool.

In the table of :data:`~collector.record.UNROUTED` are those whose record nobody has found yet. There ``endpoint`` is what
the sender said, if anything, and ``databricks_request_id`` may be null, with the request's time that of the feedback.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from collector.inference_table import TIMESTAMP

PART: Final = "part"
"""The number of a row among those of its record, from 0; only tables whose records have several rows have it."""

_COLUMNS: Final[list[tuple[str, pa.DataType]]] = [
    ("feedback_id", pa.string()),
    ("databricks_request_id", pa.string()),
    ("request_date", pa.date32()),
    ("request_time", TIMESTAMP),
    ("feedback_time", TIMESTAMP),
    ("endpoint", pa.string()),
    ("source", pa.string()),
    ("source_id", pa.string()),
    ("name", pa.string()),
    ("value", pa.float64()),
    ("label", pa.string()),
    ("comment", pa.string()),
    ("tags", pa.map_(pa.string(), pa.string())),
    ("worker_id", pa.string()),
    ("spool_offset", pa.int64()),
    (PART, pa.int32()),
    ("requester", pa.string()),
    ("client_request_id", pa.string()),
]

FEEDBACK_SCHEMA: Final = pa.schema(_COLUMNS)
