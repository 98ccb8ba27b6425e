"""Which versions of an endpoint's Delta tables there are when an export is made."""

from __future__ import annotations

from collections.abc import Mapping

from collector.catalog import Catalog
from relabel.export.manifest import TableVersions
from servelens.errors import Missing


def table_versions(catalog: Catalog) -> TableVersions:
    """Versions by the end of the table's name; ``None``: not made yet. Nothing for an endpoint that has left the settings.

    Raises :class:`~servelens.errors.Unavailable` when the storage does not answer.
    """

    def versions(endpoint: str) -> Mapping[str, int | None]:
        try:
            tables = catalog.tables(endpoint)
        except Missing:
            return {}
        named = {
            "payload": tables.payload,
            "scores": tables.scores,
            "feedback": tables.feedback,
            "labels": tables.labels,
        }
        return {name: table.version() for name, table in named.items()}

    return versions
