from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from collector.catalog import PAYLOAD_SCHEMA, SCORE_SCHEMA
from dashboard import run_figures
from dashboard.console import Console
from dashboard.pages import quality_runs
from dashboard.run_queries import due_at, standing_state
from dashboard.services import ConsoleServices
from evaluators.registry import EvaluatorSpec
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.evaluation_store import EvaluationStore
from servelens.clock import ManualClock
from tests.browser.filled_system import build, record

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
VIEW = {"endpoint": "support-chat", "range": "24h"}


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[tuple[ConsoleServices, ManualClock]]:
    clock = ManualClock(NOW)
    services = build(tmp_path / "fresh", clock, records=0)
    yield services, clock
    services.database.dispose()


def evaluation(**changes: object) -> Evaluation:
    return replace(Evaluation("toxicity", "summaries", EvaluatorSpec("toxicity", {})), **changes)  # type: ignore[arg-type]


def test_each_evaluation_stands_where_it_does(console: Console) -> None:
    found = {each.evaluation.name: each for each in console.runs.standings("support-chat")}
    assert {name: each.state for name, each in found.items()} == {
        "json_schema": "paused",
        "language": "failing",
        "perplexity": "ok",
        "toxicity": "late",
    }
    assert found["perplexity"].oldest is None
    newest_commit = console.services.catalog.tables("support-chat").payload.scan().collect()
    assert found["toxicity"].oldest == newest_commit.sort("request_time")["request_time"][-20]
    page = str(quality_runs.standings_table(list(found.values()), NOW, "UTC"))
    for words in ("Paused", "Failed", "Up to date", "Late", "the table cannot be read"):
        assert words in page


def test_a_record_is_late_until_it_is_scored(fresh: tuple[ConsoleServices, ManualClock]) -> None:
    services, clock = fresh
    console = Console(services)
    EvaluationStore(services.database, clock).create(evaluation(), by="ann")
    assert console.runs.standings("summaries")[0].state == "never"
    tables = services.catalog.tables("summaries")
    row = record(NOW - timedelta(seconds=10), 1, endpoint="summaries")
    version = tables.payload.append(pa.Table.from_pylist([row], schema=PAYLOAD_SCHEMA))
    clock.advance(10)
    (standing,) = console.runs.standings("summaries")
    assert (standing.oldest, standing.state) == (row["request_time"], "never")
    clock.advance(60)
    (standing,) = console.runs.standings("summaries")
    assert standing.state == "late"
    assert "cell-bad" in str(quality_runs.standings_table([standing], clock.now(), "UTC"))
    score = {
        name: row[name] for name in ("databricks_request_id", "request_date", "request_time", "endpoint")
    } | {"evaluator": "toxicity", "target": "response", "score": 0.1}
    tables.scores.append(
        pa.Table.from_pylist([score], schema=SCORE_SCHEMA), transactions={"toxicity@response": version}
    )
    clock.advance(10)
    (standing,) = console.runs.standings("summaries")
    assert (standing.oldest, standing.state) == (None, "never")


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({"every_s": 5.0}, timedelta(minutes=1)),
        ({"every_s": 300.0}, timedelta(minutes=10)),
        # The next full hour is 50 min 34 s away.
        ({"every_s": None, "cron": "0 * * * *"}, timedelta(minutes=60, seconds=34)),
    ],
)
def test_what_comes_when_it_is_due_is_not_late(changes: dict[str, object], due: timedelta) -> None:
    assert due_at(evaluation(**changes), NOW) == NOW + due


@pytest.mark.parametrize(
    ("paused", "last", "late", "state"),
    [
        (True, "failed", True, "paused"),
        (False, "failed", True, "failing"),
        (False, "running", True, "late"),
        (False, "running", False, "running"),
        (False, None, False, "never"),
        (False, "interrupted", False, "ok"),
    ],
)
def test_the_worst_word_is_said(paused: bool, last: str | None, late: bool, state: str) -> None:
    assert standing_state(paused=paused, last=last, late=late) == state


def test_lag_is_the_slowest_run_of_each_bin(console: Console) -> None:
    view = console.view(VIEW)
    points = console.runs.lag("support-chat", view.window)
    runs = [
        run
        for run in console.services.run_history.recent(endpoint="support-chat", limit=500)
        if run.lag_p99_s is not None and view.window.since <= run.started_at < view.window.until
    ]
    slowest: dict[tuple[str, datetime], float] = {}
    for run in runs:
        assert run.lag_p99_s is not None
        place = (run.started_at - view.window.since) // view.window.bin
        key = (run.evaluator, view.window.since + place * view.window.bin)
        slowest[key] = max(slowest.get(key, 0.0), run.lag_p99_s)
    assert {(one.evaluator, one.start): one.lag_p99_s for one in points} == pytest.approx(slowest)
    assert len(slowest) > 40
    figure = run_figures.lag(points, view.window, "light", "UTC")
    assert [line.name for line in figure.data] == ["perplexity", "toxicity"]


def test_runs_say_what_they_did(console: Console) -> None:
    page = str(quality_runs.runs_card(console.runs.recent("support-chat", 20), NOW, "UTC"))
    assert "64 too short, 21 no text" in page
    assert "the text is too short to be scored: 64" in page
    assert "<script>window.pwned=1</script>" in page  # as text, in a component
    assert page.count("'failed'") == 2


def test_nothing_to_run_says_what_to_add(fresh: tuple[ConsoleServices, ManualClock]) -> None:
    console = Console(fresh[0])
    view = console.view(VIEW)
    assert console.runs.lag("support-chat", view.window) == ()
    assert "servelens.yaml" in str(quality_runs.standings_table([], NOW, "UTC"))
    assert "No evaluator has run" in str(quality_runs.runs_card([], NOW, "UTC"))
