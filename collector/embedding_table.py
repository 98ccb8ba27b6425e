"""Columns of ``<prefix>_embeddings``: one vector per record, side and model.

``target`` says which side of the record it is: ``request`` or ``response``. Vectors of different ``model`` or
``evaluator_version`` are not to be compared. A vector is as personal as the text it was made of: it leaves with the
record.
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
    ("target", pa.string()),
    ("model", pa.string()),
    ("evaluator_version", pa.string()),
    ("vector", pa.list_(pa.float32())),
    ("embedded_at", TIMESTAMP),
]

EMBEDDING_SCHEMA: Final = pa.schema(_COLUMNS)
