"""The columns of a table: which it has, which say where rows are found, and which a newer servelens has added."""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable


def column_names(handle: DeltaTable) -> frozenset[str]:
    """The columns that the table has."""
    return frozenset(field.name for field in handle.schema().fields)


def with_columns_of(handle: DeltaTable, data: pa.Table) -> pa.Table:
    """``data`` with nulls for the columns that the table has beyond it, which another machine's newer servelens added."""
    if len(handle.schema().fields) == data.num_columns:
        return data
    for field in pa.schema(handle.schema().to_arrow()):
        if field.name not in data.column_names:
            data = data.append_column(field, pa.nulls(data.num_rows, field.type))
    return data


def time_column_of(schema: pa.Schema) -> str | None:
    """The column that says when a row's time is; ``None`` when there is none."""
    if "request_time" in schema.names:
        return "request_time"
    return "window.start" if "window" in schema.names else None
