"""SIGKILL in the middle of a run, many times: every record is scored exactly once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collector.table import Table
from evaluators.runs.run_history import RunHistory
from servelens.clock import SystemClock
from tests.new_database import new_database
from tests.unit.evaluators.inference_rows import endpoint_tables, payload_rows
from tests.unit.evaluators.workers import misbehaving

START = datetime(2026, 3, 4, 10, tzinfo=UTC)
REPOSITORY = Path(__file__).parents[4]
KILLS, COMMITS, ROWS, MAX_ROWS = 8, 60, 4, 4
KILLS_ISOLATED, COMMITS_ISOLATED = 3, 40


class ScoringServer:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self) -> int:
        """Begin to score in a new process and give its id."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._answer()

    def exit_code(self) -> int:
        """Wait until the process has ended."""
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@contextmanager
def scoring_server(root: Path, *site: str) -> Iterator[ScoringServer]:
    command = [sys.executable, "-m", "tests.unit.evaluators.scoring_server", str(root), str(MAX_ROWS), *site]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes) as process:
        yield ScoringServer(process)
    assert process.returncode == 0


def commits(table: Table) -> int:
    return len(list((Path(table.uri) / "_delta_log").glob("*.json")))


def wait_for_commits(table: Table, count: int) -> float:
    """Wait until the table has that many commits, and give the seconds that it took."""
    begun = time.monotonic()
    while commits(table) < count:
        time.sleep(0.001)
        assert time.monotonic() - begun < 60, "the run keeps no scores"
    return time.monotonic() - begun


@pytest.mark.parametrize("isolated", [False, True], ids=["in the process", "in a worker"])
def test_killed_at_any_moment_a_run_neither_loses_nor_doubles_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, isolated: bool
) -> None:
    site = [str(tmp_path / "site")] if isolated else []
    if isolated:
        monkeypatch.setattr(sys, "path", list(sys.path))
        misbehaving.install(tmp_path / "site")
    kills, commits_made = (KILLS_ISOLATED, COMMITS_ISOLATED) if isolated else (KILLS, COMMITS)
    database = new_database(tmp_path / "history.db")
    tables = endpoint_tables(tmp_path)
    chance = random.Random(1729)
    with scoring_server(tmp_path, *site) as server:
        for _ in range(commits_made - kills):
            tables.payload.append(payload_rows(ROWS, START))
        for _ in range(kills):
            before = commits(tables.scores)
            process_id = server.start()
            wait_for_commits(tables.scores, before + 1)
            pace_s = wait_for_commits(tables.scores, before + 4)
            time.sleep(chance.uniform(0, pace_s))  # the moment of the crash is the point
            os.kill(process_id, signal.SIGKILL)
            assert server.exit_code() == -signal.SIGKILL, "the run was over before it was killed"
            tables.payload.append(payload_rows(ROWS, START))
        server.start()
        assert server.exit_code() == 0

    scores = tables.scores.scan().collect()
    expected = tables.payload.scan().collect()["databricks_request_id"].sort()
    assert expected.len() == commits_made * ROWS
    assert scores["databricks_request_id"].sort().equals(expected)
    assert scores["score"].null_count() == 0
    states = [run.state for run in RunHistory(database, SystemClock()).recent()]
    database.dispose()
    assert states[0] == "succeeded"
    assert set(states[1:]) == {"interrupted"}
