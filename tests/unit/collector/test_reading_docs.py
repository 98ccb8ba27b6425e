"""The snippets of docs/reading.md, run as they stand on a real table; and that reading opens only what it must."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import re
import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from collector.inference_table import PAYLOAD_SCHEMA
from collector.table import Table

PAGE = Path(__file__).parents[3] / "docs" / "reading.md"
SNIPPETS = re.findall(
    r"^## ([^\n]+)\n.*?^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S
)
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
NEEDS_A_CLUSTER = "pyspark"
TABLE = "servelens-data/tables/servelens/default/assistant_payload"
RUN = [(title, code) for title, code in SNIPPETS if NEEDS_A_CLUSTER not in code]


def fill(uri: str, now: dt.datetime, days: int = 3, calls: int = 10) -> Table:
    """One commit a day, the last one ``now``."""
    table = Table(uri, PAYLOAD_SCHEMA)
    for day in reversed(range(days)):
        at = now - dt.timedelta(days=day)
        rows = [
            {
                "databricks_request_id": f"{day}-{number}",
                "request_date": at.date(),
                "request_time": at,
                "status_code": 200,
                "execution_duration_ms": 40 + number,
                "served_entity": "champion",
                "response": "x" * 1_000,
                "tags": [("team", "support")],
            }
            for number in range(calls)
        ]
        table.append(pa.Table.from_pylist(rows, schema=PAYLOAD_SCHEMA))
    return table


def test_the_page_has_the_snippets_that_it_should() -> None:
    titles = [title for title, _ in SNIPPETS]
    assert titles == ["polars", "DuckDB", "pandas", "Spark", "What is new since the last time"]
    assert len(RUN) == len(titles) - 1


@pytest.mark.parametrize(("title", "code"), RUN, ids=[title for title, _ in RUN])
def test_a_snippet_runs_as_it_stands(
    title: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(str(tmp_path / TABLE), dt.datetime.now(dt.UTC))
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, f"{PAGE.name}: {title}", "exec"), {})
    said = printed.getvalue()
    assert "30 new records" in said if title.startswith("What is new") else "champion" in said


def test_a_window_opens_only_its_files(tmp_path: Path) -> None:
    table = fill(str(tmp_path / "t"), NOON)
    for folder in sorted((tmp_path / "t").glob("request_date=*"))[:-1]:
        shutil.rmtree(folder)  # who opens one of these, fails
    frame = table.scan(since=NOON - dt.timedelta(hours=1)).select("databricks_request_id").collect()
    assert frame.height == 10


def test_filters_and_columns_reach_the_files(tmp_path: Path) -> None:
    table = fill(str(tmp_path / "t"), NOON)
    plan = (
        table.scan(since=NOON - dt.timedelta(hours=1))
        .filter(pl.col("served_entity") == "champion")
        .select("execution_duration_ms")
        .explain()
    )
    read = re.search(r"PROJECT (\d+)/41 COLUMNS", plan)
    assert read is not None, plan
    assert int(read[1]) <= 4  # the one asked for, and those of the filters
    assert re.search(r"SELECTION: .*served_entity", plan), plan
