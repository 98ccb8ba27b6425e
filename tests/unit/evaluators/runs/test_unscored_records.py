"""Runs over an inference table whose history was ended: what has no score is found, once, whatever is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest

from collector.catalog import EndpointTables
from collector.deletion import delete_keys
from collector.maintenance_compaction import Compactor
from collector.maintenance_history import clean_log, purge
from evaluators.runs.run_history import RunHistory
from evaluators.runs.runner import EvaluationRunner
from servelens.clock import ManualClock
from servelens.errors import Conflict
from tests.unit.evaluators.inference_rows import ENDPOINT, endpoint_tables, payload_rows
from tests.unit.evaluators.scoring_evaluators import LengthEvaluator

START = datetime(2026, 3, 4, 10, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=1))


def end_history(tables: EndpointTables) -> None:
    """Compact everything and delete the files that only older versions need."""
    later = datetime.now(UTC) + timedelta(hours=2)
    Compactor(min_files=2, target_bytes=128 << 20).run(tables.payload, now=later)
    clean_log(tables.payload, 48)
    purge(tables.payload)


def fill(tables: EndpointTables, *rows: int, day: int = 0) -> None:
    for count in rows:
        tables.payload.append(payload_rows(count, START + timedelta(days=day)))


def scored(tables: EndpointTables) -> list[str]:
    return tables.scores.scan().collect()["databricks_request_id"].to_list()


def runner_for(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, evaluator: LengthEvaluator
) -> EvaluationRunner:
    return EvaluationRunner(tables, ENDPOINT, evaluator, history, clock, max_rows=10)


def test_an_evaluator_that_was_away_for_longer_scores_what_it_missed(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    fill(tables, 4, 4)
    assert runner_for(tables, history, clock, LengthEvaluator()).run().scored == 8
    fill(tables, 5, 20)
    fill(tables, 3, day=1)
    missed = set(tables.payload.scan().collect()["databricks_request_id"]) - set(scored(tables))
    deleted = sorted(missed)[0]
    delete_keys(tables.payload, "databricks_request_id", [deleted])
    end_history(tables)
    seen: list[int] = []
    summary = runner_for(tables, history, clock, LengthEvaluator(before=lambda b: seen.append(len(b)))).run()
    assert (summary.scored, sum(seen)) == (27, 27)
    assert max(seen) <= 10
    assert summary.to_version == tables.payload.version()
    fill(tables, 2)
    assert runner_for(tables, history, clock, LengthEvaluator()).run().scored == 2
    assert len(scored(tables)) == len(set(scored(tables))) == 37
    assert deleted not in scored(tables)


def test_a_new_evaluator_reads_an_old_table_in_bounded_pieces(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    fill(tables, 25, 25)
    end_history(tables)
    seen: list[int] = []
    summary = runner_for(tables, history, clock, LengthEvaluator(before=lambda b: seen.append(len(b)))).run()
    assert summary.scored == 50
    assert max(seen) <= 10
    assert len(set(scored(tables))) == 50


def test_a_search_that_was_stopped_goes_on(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    fill(tables, 13, 12)
    end_history(tables)
    stop = Event()
    first = runner_for(tables, history, clock, LengthEvaluator(before=lambda _: stop.set())).run(stop)
    assert (first.scored, first.to_version) == (10, None)
    assert runner_for(tables, history, clock, LengthEvaluator()).run().scored == 15
    assert len(scored(tables)) == len(set(scored(tables))) == 25


def test_nothing_was_missed(tables: EndpointTables, history: RunHistory, clock: ManualClock) -> None:
    fill(tables, 4, 4)
    runner = runner_for(tables, history, clock, LengthEvaluator())
    runner.run()
    fill(tables, 1)
    runner.run()
    delete_keys(tables.payload, "databricks_request_id", scored(tables)[:2])
    end_history(tables)
    assert runner.run().scored == 0
    assert runner.run().to_version == tables.payload.version()
    assert len(scored(tables)) == 9


def test_a_replaced_table_is_still_an_error(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, tmp_path: Path
) -> None:
    fill(tables, 1, 1, 1)
    runner_for(tables, history, clock, LengthEvaluator()).run()
    Path(tables.payload.uri).rename(tmp_path / "away")
    fresh = endpoint_tables(tmp_path)
    fill(fresh, 1)
    with pytest.raises(Conflict, match="move its scores table away"):
        runner_for(fresh, history, clock, LengthEvaluator()).run()
