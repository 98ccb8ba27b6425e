"""Which table a record goes to, and how records become its rows: the one place that knows the kinds of records.

Invariant: the same endpoint and kind always give the same table, so whatever is read again goes where it went before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from collector.catalog import Catalog
from collector.feedback_rows import feedback_rows
from collector.normalize import rows
from collector.record import FEEDBACK, UNROUTED, Record
from collector.table import Table
from servelens.errors import Missing

BuildRows = Callable[[Sequence[Record], str, Sequence[int]], pa.Table]


def rows_of(*, is_feedback: bool) -> BuildRows:
    """What makes rows of records of a kind; it raises one of :data:`~collector.normalize.UNFIT` for what fits none."""
    return feedback_rows if is_feedback else rows


def table_of(catalog: Catalog, record: Record) -> Table:
    """The table of one record; that of :data:`~collector.record.UNROUTED` when there is no such endpoint. Raises
    :class:`~servelens.errors.Unavailable` when that cannot be known now.
    """
    return _table(catalog, record.endpoint, is_feedback=record.api == FEEDBACK)


class Routes:
    """The tables of ``catalog`` by endpoint and kind, remembered; ``on_new`` hears of each when it is first asked for."""

    def __init__(self, catalog: Catalog, on_new: Callable[[str], None]) -> None:
        self._catalog = catalog
        self._on_new = on_new
        self._tables: dict[str, Table] = {}
        self._uris: dict[tuple[str, bool], str] = {}

    def uri(self, endpoint: str, *, is_feedback: bool = False) -> str:
        """The address of the table. Raises :class:`~servelens.errors.Unavailable` when it cannot be known now."""
        key = (endpoint, is_feedback)
        uri = self._uris.get(key)
        if uri is None:
            table = _table(self._catalog, endpoint, is_feedback=is_feedback)
            uri = table.uri
            if uri not in self._tables:
                self._tables[uri] = table
                self._on_new(uri)
            if endpoint == UNROUTED or table is not _table(self._catalog, UNROUTED, is_feedback=is_feedback):
                self._uris[key] = uri  # else the endpoint may still come to be
        return uri

    def table(self, uri: str) -> Table:
        """The table at an address that :meth:`uri` has given."""
        return self._tables[uri]


def _table(catalog: Catalog, endpoint: str, *, is_feedback: bool) -> Table:
    try:
        tables = catalog.tables(endpoint)
    except Missing:
        tables = catalog.tables(UNROUTED)
    return tables.feedback if is_feedback else tables.payload
