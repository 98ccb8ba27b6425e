"""Columns of the inference table ``<prefix>_payload``: one row per invocation.

The first twelve are those of Databricks' AI-Gateway inference table, names, types and order unchanged, so
that queries written for it run here (https://docs.databricks.com/aws/en/ai-gateway/inference-tables).
``worker_id`` and ``spool_offset`` say where a row came from: offsets are dense per worker, so anyone can
check that none is lost. ``attempt_details`` has one element for each try at a replica, in order.

Columns are added at the end and never moved: a table that was made before a column existed gets it with the
next append, and its older rows have null there (:class:`~collector.table.Table`).
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
ATTEMPT: Final = pa.struct(
    [
        ("served_entity", pa.string()),
        ("url", pa.string()),
        ("status", pa.int32()),
        ("error_type", pa.string()),
        ("duration_ms", pa.float64()),
    ]
)

DATABRICKS_COLUMNS: Final[tuple[tuple[str, pa.DataType], ...]] = (
    ("databricks_request_id", pa.string()),
    ("request_date", pa.date32()),
    ("client_request_id", pa.string()),
    ("request_time", TIMESTAMP),
    ("status_code", pa.int32()),
    ("sampling_fraction", pa.float64()),
    ("execution_duration_ms", pa.int64()),
    ("request", pa.string()),
    ("response", pa.string()),
    ("logging_error_codes", pa.list_(pa.string())),
    ("served_entity_id", pa.string()),
    ("requester", pa.string()),
)

_COLUMNS: Final[list[tuple[str, pa.DataType]]] = [
    *DATABRICKS_COLUMNS,
    ("endpoint", pa.string()),
    ("served_entity", pa.string()),
    ("entity_version", pa.string()),
    ("api", pa.string()),
    ("model", pa.string()),
    ("experiment", pa.string()),
    ("variant", pa.string()),
    ("unit", pa.string()),
    ("phase", pa.int32()),
    ("propensity", pa.float64()),
    ("is_shadow", pa.bool_()),
    ("shadow_of", pa.string()),
    ("is_stream", pa.bool_()),
    ("time_to_first_token_ms", pa.float64()),
    ("input_tokens", pa.int64()),
    ("output_tokens", pa.int64()),
    ("finish_reason", pa.string()),
    ("prompt_text", pa.string()),
    ("response_text", pa.string()),
    ("error_type", pa.string()),
    ("attempts", pa.int32()),
    ("client_disconnected", pa.bool_()),
    ("trace_id", pa.string()),
    ("session_id", pa.string()),
    ("tags", pa.map_(pa.string(), pa.string())),
    ("worker_id", pa.string()),
    ("spool_offset", pa.int64()),
    ("endpoint_config_version", pa.int32()),
    ("attempt_details", pa.list_(ATTEMPT)),
]

PAYLOAD_SCHEMA: Final = pa.schema(_COLUMNS)
