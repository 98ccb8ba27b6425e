"""The lag's history is grouped alike by every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from collector.catalog import Catalog
from dashboard.queries import TableReader
from dashboard.run_queries import LagPoint, RunQueries
from dashboard.view import window
from evaluators.runs.run_history import RunHistory
from servelens.clock import ManualClock
from servelens.database import Database

NOW = datetime(2026, 3, 14, 15, 0, tzinfo=UTC)


def test_lag_is_grouped_by_bin_evaluator_and_target(database: Database, tmp_path: Path) -> None:
    for minutes, evaluator, target, lag in (
        (59, "toxicity", "response", 20.0),
        (58.9, "toxicity", "response", 30.0),
        (59, "toxicity", "request", 5.0),
        (29.5, "toxicity", "response", 40.0),
        (29.5, "drift", None, None),
        (61, "toxicity", "response", 999.0),
    ):
        history = RunHistory(database, ManualClock(NOW - timedelta(minutes=minutes)))
        with history.recorded(
            endpoint="chat", evaluator=evaluator, target=target, device="cpu", from_version=0
        ) as progress:
            progress.update(to_version=1, scored=1, unscored_reasons={}, lag_p99_s=lag)
    clock = ManualClock(NOW)
    runs = RunQueries(Catalog(str(tmp_path), {}), database, TableReader(clock), clock)
    hour = window(NOW - timedelta(hours=1), NOW)
    assert hour.bin == timedelta(minutes=1)
    assert runs.lag("chat", hour) == (
        LagPoint("toxicity", "request", NOW - timedelta(minutes=59), 5.0),
        LagPoint("toxicity", "response", NOW - timedelta(minutes=59), 30.0),
        LagPoint("toxicity", "response", NOW - timedelta(minutes=30), 40.0),
    )
