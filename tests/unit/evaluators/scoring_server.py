"""Forks a process that scores the tables under a folder for each line it is sent: ``python -m … ROOT MAX_ROWS [SITE]``.

For tests that kill such processes: importing takes seconds, a fork milliseconds. It answers a line with the process id,
and with the exit code (negative: the signal) once that process has ended. With SITE, where the misbehaving evaluator is
installed, the evaluator is in a process of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from evaluators.evaluator import Evaluator
from evaluators.registry import EvaluatorSpec
from evaluators.runs.run_history import RunHistory
from evaluators.runs.runner import EvaluationRunner
from evaluators.workers.isolated import IsolatedEvaluator
from servelens.clock import SystemClock
from servelens.database import Database
from tests.unit.evaluators.inference_rows import ENDPOINT, endpoint_tables
from tests.unit.evaluators.scoring_evaluators import LengthEvaluator


def score_everything(root: Path, max_rows: int, site: str | None) -> None:
    """Catch up with the inference table."""
    clock = SystemClock()
    database = Database(f"sqlite:///{root}/history.db")
    history = RunHistory(database, clock)
    evaluator: Evaluator = LengthEvaluator()
    if site is not None:
        sys.path.insert(0, site)
        evaluator = IsolatedEvaluator(EvaluatorSpec("misbehaving"), root)
    runner = EvaluationRunner(endpoint_tables(root), ENDPOINT, evaluator, history, clock, max_rows=max_rows)
    runner.run()
    database.dispose()


def main(root: Path, max_rows: int, site: str | None = None) -> None:
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            score_everything(root, max_rows, site)
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
