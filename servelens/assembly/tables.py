"""The catalog of Delta tables, from the settings and the endpoints of the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from collector.catalog import Catalog, TableName
from servelens.control.store import UNROUTED_PREFIX, EndpointStore
from servelens.control.table_names import StoredTableNames
from servelens.settings import Settings


def build_catalog(settings: Settings, store: EndpointStore | None = None) -> Catalog:
    """Every endpoint's tables. With ``store`` all endpoints that it has or will have; without one those of the
    settings file, named by their ``inference_table_config``.
    """
    return Catalog(
        settings.tables_root,
        {} if store is not None else _names(settings),
        unrouted=TableName(settings.tables.catalog, settings.tables.schema_name, UNROUTED_PREFIX),
        storage_options=settings.tables.storage_options or None,
        more=_nothing if store is None else _stored(store),
    )


def _nothing() -> None:
    return None


def _stored(store: EndpointStore) -> Callable[[], Mapping[str, TableName] | None]:
    names = StoredTableNames(store)

    def more() -> Mapping[str, TableName] | None:
        places = names()
        if places is None:
            return None
        return {endpoint: TableName(*place) for endpoint, place in places.items()}

    return more


def _names(settings: Settings) -> dict[str, TableName]:
    names = {}
    for endpoint in settings.endpoints:
        config = endpoint.ai_gateway.inference_table_config
        names[endpoint.name] = TableName(
            config.catalog_name or settings.tables.catalog,
            config.schema_name or settings.tables.schema_name,
            config.table_name_prefix or endpoint.name,
        )
    return names
