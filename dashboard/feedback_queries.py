"""What users said of one request, from the endpoint's feedback table."""

from __future__ import annotations

from typing import Any

import polars as pl

from collector.catalog import Catalog
from dashboard.queries import TableReader, collect
from dashboard.request_queries import around

_MOST = 20


class FeedbackQueries:
    """Reads feedback."""

    def __init__(self, catalog: Catalog, reader: TableReader) -> None:
        self._catalog = catalog
        self._reader = reader

    def given(self, endpoint: str, request_id: str) -> list[dict[str, Any]]:
        """The newest feedback on a request, at most 20 rows. The id holds the request's time, so only its days are read.

        Raises :class:`~servelens.errors.Missing` when it is no id of ours.
        """
        since, until = around(request_id)
        table = self._catalog.tables(endpoint).feedback

        def compute() -> list[dict[str, Any]]:
            rows = (
                table.scan()
                .filter(
                    pl.col("request_date").is_between(since.date(), until.date()),
                    pl.col("databricks_request_id") == request_id,
                )
                .select("feedback_time", "source", "source_id", "name", "value", "label", "comment")
                .sort("feedback_time", descending=True)
                .head(_MOST)
            )
            return collect(rows).to_dicts()

        return self._reader.read([table], ("feedback of a request", endpoint, request_id), compute)
