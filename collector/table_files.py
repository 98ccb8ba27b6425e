"""How the files of a table are written: what is compressed, and what the log knows of each file."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
from deltalake import ColumnProperties, WriterProperties

_REQUEST_ID: Final = "databricks_request_id"
_UNIQUE: Final = (_REQUEST_ID, "request", "response", "prompt_text", "response_text")


def writer_properties(schema: pa.Schema) -> WriterProperties:
    """Compression that costs little, and no dictionaries of texts of which nearly every one is new."""
    return WriterProperties(
        compression="SNAPPY",
        column_properties={
            name: ColumnProperties(dictionary_enabled=False) for name in _UNIQUE if name in schema.names
        },
    )


def statistics_columns(schema: pa.Schema) -> list[str]:
    """Columns whose minimum and maximum per file are worth their bytes in the log: never the long texts.

    Request ids sort by time, so statistics on them make a look-up by id cheap. Empty: Delta's own choice.
    """
    if "request_time" not in schema.names:
        return []
    return [
        field.name
        for field in schema
        if field.name == _REQUEST_ID or (pa.types.is_primitive(field.type) and field.name != "request_date")
    ]
