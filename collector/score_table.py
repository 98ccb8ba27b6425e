"""Columns of ``<prefix>_scores``: one row per record, evaluator and target.

What could not be scored has a null ``score`` and says why in ``unscored_reason``; it is never a zero.
``details`` is a JSON object of further numbers and words (the six toxicity labels, for example).
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
    ("evaluator", pa.string()),
    ("evaluator_version", pa.string()),
    ("model", pa.string()),
    ("target", pa.string()),
    ("score", pa.float64()),
    ("label", pa.string()),
    ("unscored_reason", pa.string()),
    ("details", pa.string()),
    ("scored_at", TIMESTAMP),
]

SCORE_SCHEMA: Final = pa.schema(_COLUMNS)
