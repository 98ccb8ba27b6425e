"""The catalog of Delta tables, from the settings."""

from __future__ import annotations

from collector.catalog import Catalog, TableName
from servelens.settings import Settings


def build_catalog(settings: Settings) -> Catalog:
    """Every endpoint's tables, named by its ``inference_table_config``."""
    names = {}
    for endpoint in settings.endpoints:
        config = endpoint.ai_gateway.inference_table_config
        names[endpoint.name] = TableName(
            config.catalog_name or settings.tables.catalog,
            config.schema_name or settings.tables.schema_name,
            config.table_name_prefix or endpoint.name,
        )
    unrouted = TableName(settings.tables.catalog, settings.tables.schema_name, "unrouted")
    return Catalog(
        settings.tables_root,
        names,
        unrouted=unrouted,
        storage_options=settings.tables.storage_options or None,
    )
