"""The columns of a table: which it has, which say where rows are found, and which a newer servelens has added."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from servelens.errors import Invalid


def column_names(handle: DeltaTable) -> frozenset[str]:
    """The columns that the table has."""
    return frozenset(field.name for field in handle.schema().fields)


def with_columns_of(handle: DeltaTable, data: pa.Table) -> pa.Table:
    """``data`` with nulls for the columns that the table has beyond it, which another machine's newer servelens added."""
    if len(handle.schema().fields) == data.num_columns:
        return data
    for field in pa.table(handle.schema().to_arrow().empty_table()).schema:
        if field.name not in data.column_names:
            data = data.append_column(field, pa.nulls(data.num_rows, field.type))
    return data


def time_column_of(schema: pa.Schema) -> str | None:
    """The column that says when a row's time is; ``None`` when there is none."""
    if "request_time" in schema.names:
        return "request_time"
    return "window.start" if "window" in schema.names else None


def time_condition(
    column: str | None, since: datetime | None, until: datetime | None, schema: pa.Schema
) -> pl.Expr | None:
    """Rows whose ``column`` (a dot reaches into a struct) lies in [``since``, ``until``); ``None``: all rows.

    Where the partition says the date of that time, it is part of the condition. Raises
    :class:`~servelens.errors.Invalid` when there is no such column, or a time without a zone.
    """
    if since is None and until is None:
        return None
    if column is None:
        raise Invalid("the table has no time column to filter on", field="since")
    outer, _, inner = column.partition(".")
    moment = pl.col(outer).struct.field(inner) if inner else pl.col(outer)
    by_date = column == "request_time" and "request_date" in schema.names
    conditions: list[pl.Expr] = []
    for bound, lower in ((since, True), (until, False)):
        if bound is None:
            continue
        if bound.tzinfo is None:
            raise Invalid("a time without a zone means nothing", field="since" if lower else "until")
        bound = bound.astimezone(UTC)
        conditions.append(moment >= bound if lower else moment < bound)
        if by_date:
            date = pl.col("request_date")
            conditions.append(date >= bound.date() if lower else date <= bound.date())
    return pl.all_horizontal(conditions)
