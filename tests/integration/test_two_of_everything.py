"""Two proxies, two collectors, one PostgreSQL, one object storage: each answered call is one row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgresql import MISSING, postgresql_binaries
from tests.two_of_everything import keep_books

RECORDS = 3_000


@pytest.mark.skipif(postgresql_binaries() is None, reason=MISSING)
def test_each_answered_call_is_one_row(tmp_path: Path) -> None:
    books = keep_books(tmp_path, RECORDS, commit_interval_s=0.1)  # often, so that the two meet
    assert books.add_up, books
    assert books.commits > 4
