from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from dashboard.console import Console
from dashboard.queries import failed_expression
from dashboard.request_queries import Listing, score_column
from dashboard.services import ConsoleServices
from servelens.errors import Missing
from tests.browser.conversations import PROBE
from tests.browser.filled_system import rows_of


def listing(console: Console, **options: Any) -> Listing:
    asked = {"search": "", "outcome": "all", "start": 0, "end": 10_000} | options
    return console.requests.listing(console.view({"endpoint": "support-chat", "range": "7d"}), **asked)


@pytest.fixture(scope="module")
def rows(services: ConsoleServices) -> pl.DataFrame:
    return rows_of(services, "support-chat").with_columns(failed_expression().alias("failed"))


def test_newest_come_first_and_pages_do_not_overlap(console: Console, rows: pl.DataFrame) -> None:
    everything = listing(console)
    assert everything.total == rows.height
    times = [row["request_time"] for row in everything.rows]
    assert times == sorted(times, reverse=True)
    pages = [listing(console, start=start, end=start + 100).rows for start in range(0, rows.height, 100)]
    assert [row["databricks_request_id"] for page in pages for row in page] == [
        row["databricks_request_id"] for row in everything.rows
    ]


def test_search_ignores_case_and_is_no_pattern(console: Console, rows: pl.DataFrame) -> None:
    found = listing(console, search="HEAT pump")
    text = rows["prompt_text"].str.to_lowercase() + rows["response_text"].fill_null("").str.to_lowercase()
    assert found.total == text.str.contains("heat pump", literal=True).sum() > 0
    assert listing(console, search=".*").total == 0
    assert listing(console, search=PROBE).total == 1


def test_search_finds_an_id(console: Console, rows: pl.DataFrame) -> None:
    request_id = rows["databricks_request_id"][5]
    assert [row["databricks_request_id"] for row in listing(console, search=request_id).rows] == [request_id]


def test_outcome(console: Console, rows: pl.DataFrame) -> None:
    assert listing(console, outcome="failed").total == rows["failed"].sum()
    assert listing(console, outcome="ok").total == (~rows["failed"]).sum()


def test_sort_and_filters_of_the_grid(console: Console, rows: pl.DataFrame) -> None:
    slow = {"execution_duration_ms": {"filterType": "number", "type": "greaterThan", "filter": 2000}}
    found = listing(console, filters=slow, sort=[{"colId": "execution_duration_ms", "sort": "desc"}])
    durations = [row["execution_duration_ms"] for row in found.rows]
    assert durations == sorted(
        rows.filter(pl.col("execution_duration_ms") > 2000)["execution_duration_ms"], reverse=True
    )
    either = {
        "arm": {
            "operator": "OR",
            "conditions": [{"type": "equals", "filter": "Champion"}, {"type": "contains", "filter": "llen"}],
        }
    }
    assert listing(console, filters=either).total == rows.height
    errors = {"error_type": {"type": "notBlank"}}
    assert listing(console, filters=errors).total == rows["error_type"].is_not_null().sum()


def test_scores_are_columns_that_filter_and_sort(console: Console) -> None:
    column = score_column("perplexity")
    found = listing(
        console,
        filters={column: {"type": "inRange", "filter": 500, "filterTo": 9000}},
        sort=[{"colId": column, "sort": "asc"}],
    )
    scores = [row[column] for row in found.rows]
    assert scores == sorted(scores)
    assert len(scores) > 10
    assert 500 <= scores[0] <= scores[-1] <= 9000
    assert found.evaluators == ("ground_truth", "json_schema", "language", "perplexity", "toxicity")


@pytest.mark.parametrize(
    "filters",
    [
        {"nope": {"type": "equals", "filter": "x"}},
        {"prompt": "junk", "arm": None, "status_code": {"type": "equals", "filter": "abc"}},
        {"status_code": {"type": "explode", "filter": 1}, "arm": {"operator": "AND", "conditions": None}},
        {"arm": {"type": "contains", "filter": {"a": 1}}},
    ],
)
def test_filters_that_mean_nothing_are_left_out(
    console: Console, rows: pl.DataFrame, filters: dict[str, Any]
) -> None:
    assert listing(console, filters=filters, sort=[{"colId": "nope", "sort": "asc"}]).total == rows.height


def test_request_is_found_by_its_id_alone(console: Console, rows: pl.DataFrame) -> None:
    wanted = rows.row(7, named=True)
    found = console.requests.request("support-chat", wanted["databricks_request_id"])
    assert found["request"] == wanted["request"]
    assert found["arm"] == wanted["variant"]
    scores = console.requests.scores("support-chat", wanted["databricks_request_id"])
    names = [score["evaluator"] for score in scores if score["evaluator"] != "ground_truth"]
    assert names == ["json_schema", "language", "perplexity", "toxicity"]


@pytest.mark.parametrize(
    "request_id",
    [
        "",
        "x",
        "../../etc",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
        "01890a5d-ac96-774b-bcce-b302099a8057",
    ],
)
def test_unknown_request_is_missing(console: Console, request_id: str) -> None:
    with pytest.raises(Missing):
        console.requests.request("support-chat", request_id)
    with pytest.raises(Missing):
        console.requests.request("no such endpoint", "01890a5d-ac96-774b-bcce-b302099a8057")


def test_endpoint_without_a_table_has_no_rows(empty_services: ConsoleServices) -> None:
    assert listing(Console(empty_services)) == Listing([], 0, False, ())
