"""Vectors are kept exactly once, whatever happens between their commit and that of the scores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from collector.catalog import EMBEDDING_SCHEMA, EndpointTables
from evaluators.evaluator import EMPTY, Score, Text, unscored
from evaluators.runs.run_history import RunHistory
from evaluators.runs.runner import EvaluationRunner
from evaluators.runs.vector_writer import VectorWriter
from servelens.clock import ManualClock, SystemClock
from servelens.database import Database
from servelens.errors import Conflict
from tests.unit.evaluators.inference_rows import ENDPOINT, endpoint_tables, payload_rows

START = datetime(2026, 3, 4, 10, tzinfo=UTC)
REPOSITORY = Path(__file__).parents[4]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=1))


class Vectors:
    """An evaluator whose vector of a text is its length and one; ``version`` as given."""

    name = "vectors"
    model = "lengths"
    target = "response"
    device = "cpu"

    def __init__(self, version: str = "1") -> None:
        self.version = version

    def score(self, batch: Sequence[Text]) -> list[Score]:
        return [
            Score(
                1.0,
                vectors={
                    "request": array("f", [len(text.prompt or ""), 1.0]),
                    "response": [float(len(text.response or "")), 1.0],
                },
            )
            for text in batch
        ]


class Killed(BaseException):
    """The process ended here: nothing catches it."""


def kept(tables: EndpointTables) -> pl.DataFrame:
    return tables.embeddings.scan().collect().sort("databricks_request_id", "target", "evaluator_version")


def once(tables: EndpointTables) -> bool:
    """Whether every record has each side's vector once, and a score."""
    ids = tables.payload.scan().collect()["databricks_request_id"].sort()
    sides = kept(tables).group_by("databricks_request_id").agg(pl.col("target").sort())
    scored = tables.scores.scan().collect()["databricks_request_id"].sort()
    return (
        scored.equals(ids)
        and sides["databricks_request_id"].sort().equals(ids)
        and all(targets.to_list() == ["request", "response"] for targets in sides["target"])
    )


def killed_between_the_commits(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, **options: int
) -> None:
    """A run that ends after the vectors' first commit and before that of their scores."""
    runner = EvaluationRunner(tables, ENDPOINT, Vectors(), history, clock, **options)
    keep = runner._scorer._vectors.keep

    def keep_and_die(*arguments: object, **named: object) -> int:
        keep(*arguments, **named)  # type: ignore[arg-type]
        raise Killed

    runner._scorer._vectors.keep = keep_and_die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        runner.run()


def test_each_side_is_a_row_beside_what_identifies_the_record(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(2, START, variant=["control", None], response_text=["Paris.", "No."])
    tables.payload.append(payload)
    EvaluationRunner(tables, ENDPOINT, Vectors(), history, clock).run()
    rows = kept(tables)
    assert rows.columns == EMBEDDING_SCHEMA.names
    asked = float(len("What is the capital of France?"))
    assert rows["vector"].to_list() == [[asked, 1.0], [6.0, 1.0], [asked, 1.0], [3.0, 1.0]]
    assert rows["target"].to_list() == ["request", "response"] * 2
    same = ["databricks_request_id", "request_date", "request_time", "endpoint", "served_entity", "variant"]
    for side in ("request", "response"):
        assert (
            rows.filter(target=side).select(same).equals(payload.sort("databricks_request_id").select(same))
        )
    about = rows.select("model", "evaluator_version", "embedded_at").unique().to_dicts()
    assert about == [{"model": "lengths", "evaluator_version": "1", "embedded_at": clock.now()}]
    assert tables.embeddings.transaction_version("vectors@response") == tables.payload.version()


def test_killed_between_the_commits_nothing_is_lost_or_doubled(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(5, START))
    killed_between_the_commits(tables, history, clock)
    assert kept(tables).height == 10
    assert not tables.scores.exists()
    EvaluationRunner(tables, ENDPOINT, Vectors(), history, clock).run()
    assert once(tables)


@pytest.mark.parametrize("max_rows", [3, 2_000])
def test_a_batch_that_is_cut_otherwise_after_the_crash_doubles_nothing(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, max_rows: int
) -> None:
    for _ in range(3):
        tables.payload.append(payload_rows(3, START))
    killed_between_the_commits(tables, history, clock, max_rows=6)
    tables.payload.append(payload_rows(4, START))
    EvaluationRunner(tables, ENDPOINT, Vectors(), history, clock, max_rows=max_rows).run()
    assert once(tables)


def test_a_search_for_what_has_no_score_doubles_no_vector(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    """The history is gone, so the batches but the last carry no version."""
    for _ in range(4):
        tables.payload.append(payload_rows(3, START))
    with tables.payload.upkeep() as handle:
        assert handle is not None
        handle.create_checkpoint()
    for log in (Path(tables.payload.uri) / "_delta_log").glob("*[012].json"):
        log.unlink()
    killed_between_the_commits(tables, history, clock, max_rows=5)
    assert kept(tables).height == 10
    EvaluationRunner(tables, ENDPOINT, Vectors(), history, clock, max_rows=5).run()
    assert once(tables)


def test_after_the_crash_another_version_of_the_model_writes_its_own(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(2, START))
    killed_between_the_commits(tables, history, clock)
    EvaluationRunner(tables, ENDPOINT, Vectors("2"), history, clock).run()
    assert kept(tables)["evaluator_version"].to_list() == ["1", "2"] * 4
    assert tables.scores.scan().collect()["evaluator_version"].unique().to_list() == ["2"]


def test_two_that_write_the_same_batch_at_once_are_a_conflict(
    tables: EndpointTables, clock: ManualClock
) -> None:
    payload = payload_rows(2, START)
    scores = [Score(1.0, vectors={"request": [1.0, 0.0]})] * 2

    def write(rows: pl.DataFrame, table: EndpointTables) -> int:
        writer = VectorWriter(table.embeddings, clock)
        return writer.keep(rows, scores, Vectors(), {"vectors@response": 4})

    assert write(payload, tables) == 2
    assert write(payload, tables) == 0
    with pytest.raises(Conflict):
        tables.embeddings.append(kept(tables), transactions={"vectors@response": 4})


def test_what_is_no_vector_is_left_out_and_logged(
    tables: EndpointTables, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    payload = payload_rows(4, START)
    scores = [
        Score(1.0, vectors={"request": [1.0, 0.0], "response": [1.0, float("nan")]}),
        Score(None, unscored_reason=EMPTY, vectors={"response": [0.0, 1.0]}),
        Score(1.0, vectors={"request": [1.0, 0.0, 0.0]}),
        unscored(EMPTY),
    ]
    writer = VectorWriter(tables.embeddings, clock)
    written = writer.keep(payload, scores, Vectors(), {"vectors@response": 1})
    assert written == 2
    assert [(row["target"], row["vector"]) for row in kept(tables).to_dicts()] == [
        ("request", [1.0, 0.0]),
        ("response", [0.0, 1.0]),
    ]
    assert "vectors=2" in caplog.text


def test_without_vectors_no_table_is_made(tables: EndpointTables, clock: ManualClock) -> None:
    writer = VectorWriter(tables.embeddings, clock)
    assert writer.keep(payload_rows(1, START), [Score(1.0)], Vectors(), {"a": 1}) == 0
    assert not tables.embeddings.exists()


def test_sigkill_between_the_commits_of_a_real_process(tmp_path: Path) -> None:
    tables = endpoint_tables(tmp_path)
    tables.payload.append(payload_rows(3, START))
    program = f"""
import os, signal
from pathlib import Path
from collector.table import Table
from evaluators.runs.run_history import RunHistory
from evaluators.runs.runner import EvaluationRunner
from servelens.clock import SystemClock
from servelens.database import Database
from tests.unit.evaluators.inference_rows import ENDPOINT, endpoint_tables
from tests.unit.evaluators.runs.test_vector_writer import Vectors

tables = endpoint_tables(Path({str(tmp_path)!r}))
append = Table.append

def append_and_die(table, rows, **options):
    version = append(table, rows, **options)
    if table.uri == tables.embeddings.uri:
        os.kill(os.getpid(), signal.SIGKILL)
    return version

Table.append = append_and_die
database = Database("sqlite:///{tmp_path}/history.db")
database.create_tables()
EvaluationRunner(tables, ENDPOINT, Vectors(), RunHistory(database, SystemClock()), SystemClock()).run()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    assert (kept(tables).height, tables.scores.exists()) == (6, False)
    database = Database(f"sqlite:///{tmp_path}/history.db")
    history = RunHistory(database, SystemClock())
    EvaluationRunner(tables, ENDPOINT, Vectors(), history, SystemClock()).run()
    database.dispose()
    assert once(tables)
