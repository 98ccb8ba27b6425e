"""Columns of ``<prefix>_feedback``: labels and feedback that arrive after the answer, joined by request id.

``request_date`` and ``request_time`` are those of the request that the feedback is about (the request id
holds them), so that a join prunes both tables alike; ``feedback_time`` is when the feedback arrived.
``source`` says who gave it (``user``, ``annotator``, ``api``); a number goes to ``value``, a word to
``label``.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from collector.inference_table import TIMESTAMP

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
]

FEEDBACK_SCHEMA: Final = pa.schema(_COLUMNS)
