from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from collector.catalog import PAYLOAD_SCHEMA, UNROUTED, Catalog, TableName
from servelens.errors import Invalid, Missing


def test_tables_lie_where_the_endpoint_says(tmp_path: Path) -> None:
    catalog = Catalog(str(tmp_path), {"chat": TableName("main", "serving", "chat")})
    assert catalog.endpoints == ("chat",)
    tables = catalog.tables("chat")
    assert tables.payload.uri == f"{tmp_path}/main/serving/chat_payload"
    assert tables.scores.uri.endswith("/chat_scores")
    assert tables.profiles.uri.endswith("/chat_payload_profile_metrics")
    assert tables.drift.uri.endswith("/chat_payload_drift_metrics")
    assert tables.sketches.uri.endswith("/chat_sketches")
    assert tables.feedback.uri.endswith("/chat_feedback")
    assert tables.embeddings.uri.endswith("/chat_embeddings")
    assert catalog.tables(UNROUTED).payload.uri.endswith("/unrouted_payload")


def test_every_table_can_be_created_and_read(tmp_path: Path) -> None:
    tables = Catalog(str(tmp_path), {"chat": TableName("main", "serving", "chat")}).tables("chat")
    for table in (
        tables.payload,
        tables.scores,
        tables.profiles,
        tables.drift,
        tables.sketches,
        tables.feedback,
        tables.embeddings,
    ):
        table.append(table.schema.empty_table())
        assert table.scan().collect().columns == table.schema.names
        assert table.read_since(None).frame.schema == table.scan().collect_schema()


def test_an_unknown_endpoint_is_missing_and_names_the_known_ones(tmp_path: Path) -> None:
    catalog = Catalog(str(tmp_path), {"chat": TableName("main", "serving", "chat")})
    with pytest.raises(Missing, match="chat"):
        catalog.tables("chatt")


def test_endpoints_cannot_share_a_table_or_leave_the_root(tmp_path: Path) -> None:
    name = TableName("main", "serving", "chat")
    with pytest.raises(Invalid, match="endpoint 'a' as well"):
        Catalog(str(tmp_path), {"a": name, "b": name})
    with pytest.raises(Invalid, match="part of a table name"):
        Catalog(str(tmp_path), {"a": TableName("..", "serving", "chat")})


def test_the_first_twelve_columns_are_databricks_own() -> None:
    assert [(field.name, str(field.type)) for field in list(PAYLOAD_SCHEMA)[:12]] == [
        ("databricks_request_id", "string"),
        ("request_date", "date32[day]"),
        ("client_request_id", "string"),
        ("request_time", "timestamp[us, tz=UTC]"),
        ("status_code", "int32"),
        ("sampling_fraction", "double"),
        ("execution_duration_ms", "int64"),
        ("request", "string"),
        ("response", "string"),
        ("logging_error_codes", "list<item: string>"),
        ("served_entity_id", "string"),
        ("requester", "string"),
    ]
    assert len(PAYLOAD_SCHEMA) == 12 + 29
    assert PAYLOAD_SCHEMA.field("tags").type == pa.map_(pa.string(), pa.string())
