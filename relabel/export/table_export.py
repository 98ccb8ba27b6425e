"""The format ``labels_table``: labels of one endpoint, appended to its Delta table."""

from __future__ import annotations

from typing import Any

from collector.catalog import Catalog
from relabel.export.export import Export
from relabel.export.labels_table import append_labels, schema_versions
from relabel.export.manifest import Manifests
from relabel.export.query import ExportQuery
from servelens.database import Database
from servelens.errors import Invalid


def export_table(
    database: Database, catalog: Catalog, query: ExportQuery, manifests: Manifests, *, by: str | None
) -> dict[str, Any]:
    """Append what the table does not hold, and give the manifest, whose ``table`` says where the labels are.

    Raises :class:`~servelens.errors.Invalid` when the query names another number of endpoints than one, and what
    :func:`~relabel.export.labels_table.append_labels` raises.
    """
    if len(query.endpoints) != 1:
        raise Invalid("each endpoint has its own table", field="endpoint", fix="Name one endpoint.")
    table = catalog.tables(query.endpoints[0]).labels
    export = Export(database, query)
    # The manifest says as of which decision: the table is to hold those, and not what was decided in between.
    export.schema_versions = {query.endpoints[0]: schema_versions(database, query.endpoints[0], export.as_of)}
    appended = append_labels(database, query.endpoints[0], table, export.as_of)
    counts = {"written": appended.rows}
    where = {"uri": table.uri, "version": appended.version, "decisions_up_to": appended.as_of}
    return manifests.made(export, [], by=by, counts=counts, table=where)
