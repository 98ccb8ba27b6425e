"""What users said of one request, from the endpoint's feedback table."""

from __future__ import annotations

from collector.catalog import Catalog
from dashboard.queries import TableReader
from dashboard.request_queries import around
from relabel.feedback import GivenFeedback, feedback_of


class FeedbackQueries:
    """Reads feedback."""

    def __init__(self, catalog: Catalog, reader: TableReader) -> None:
        self._catalog = catalog
        self._reader = reader

    def given(self, endpoint: str, request_id: str) -> list[GivenFeedback]:
        """What was said of a request, newest first: the last word of each person under each name. The id holds the request's
        time, so only its days are read.

        Raises :class:`~servelens.errors.Missing` when it is no id of ours.
        """
        since, until = around(request_id)
        tables = self._catalog.tables(endpoint)

        def compute() -> list[GivenFeedback]:
            return feedback_of(tables, [request_id], since, until).get(request_id, [])

        return self._reader.read([tables.feedback], ("feedback of a request", endpoint, request_id), compute)
