"""How many rows of a worker have left a table on purpose: by retention, or because somebody asked to be forgotten.

A deletion says so in its own commit, as an application transaction (``deleted:<worker id>`` → rows in all), so the
table and its count never disagree, and the count outlives the log
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md, "Transaction Identifiers").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from collector.table import Table

DELETED: Final = "deleted:"
"""Prefix of the application id."""


def departed_rows(table: Table, worker_ids: Sequence[str]) -> dict[str, int]:
    """The count of each worker, 0 when nothing of it has left. Raises :class:`~servelens.errors.Unavailable`."""
    versions = table.transaction_versions([DELETED + name for name in worker_ids])
    return {name: versions[DELETED + name] or 0 for name in worker_ids}
