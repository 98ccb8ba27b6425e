"""Columns of ``<prefix>_labels``: what people decided about requests, joined by request id.

One row per decision about a case; of the rows of a ``case_id`` the one with the largest ``decision_id`` counts, and when it
has no ``resolution`` the case has no label any more (it was skipped, or is looked at again). ``request_date`` and
``request_time`` are those of the request. ``values`` is a JSON object: the answers to the fields of the endpoint's label
schema of ``schema_version``.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from collector.inference_table import TIMESTAMP

_COLUMNS: Final[list[tuple[str, pa.DataType]]] = [
    ("databricks_request_id", pa.string()),
    ("request_date", pa.date32()),
    ("request_time", TIMESTAMP),
    ("endpoint", pa.string()),
    ("served_entity", pa.string()),
    ("variant", pa.string()),
    ("model", pa.string()),
    ("case_id", pa.int64()),
    ("decision_id", pa.int64()),
    ("decided_at", TIMESTAMP),
    ("resolution", pa.string()),
    ("labels", pa.int32()),
    ("agreement", pa.float64()),
    ("rating", pa.string()),
    ("corrected_answer", pa.string()),
    ("preferred", pa.string()),
    ("tags", pa.list_(pa.string())),
    ("values", pa.string()),
    ("comment", pa.string()),
    ("annotator", pa.string()),
    ("labeled_at", TIMESTAMP),
    ("schema_version", pa.int32()),
    ("source", pa.string()),
]

LABEL_SCHEMA: Final = pa.schema(_COLUMNS)
