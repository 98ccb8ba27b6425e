"""How many rows commits have added, by Delta's change data feed, without reading more of the log than is needed."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

COMMIT_VERSION = "_commit_version"
CHANGE_TYPE = "_change_type"
INSERTED = pl.col(CHANGE_TYPE) == "insert"
_LOOK_AHEAD = 64


def added_rows(handle: DeltaTable, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The commits from ``first`` to ``last`` that added rows, oldest first, each with how many.

    So many commits are looked at at a time that a reader who stops early has not paid for all that follow.
    """
    for start in range(first, last + 1, _LOOK_AHEAD):
        end = min(start + _LOOK_AHEAD - 1, last)
        reader = handle.load_cdf(
            starting_version=start, ending_version=end, columns=[CHANGE_TYPE, COMMIT_VERSION]
        )
        added = pl.DataFrame(pa.table(reader)).filter(INSERTED)
        yield from added.group_by(COMMIT_VERSION).len().sort(COMMIT_VERSION).iter_rows()


def last_that_fits(handle: DeltaTable, first: int, newest: int, max_rows: int) -> int:
    """The last commit up to which ``max_rows`` rows were added; at least one commit that adds rows is taken."""
    last, taken = first, 0
    for commit, rows in added_rows(handle, first, newest):
        if taken and taken + rows > max_rows:
            return int(last)
        taken += rows
        last = commit
    # Commits without rows behind the last one with rows count as read, or they would be read for ever.
    return newest
