"""A slow backfill of everything in a folder, to be killed: ``python -m … ROOT``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from evaluators.runs.backfill import Backfill
from evaluators.runs.run_history import RunHistory
from servelens.clock import SystemClock
from servelens.database import Database
from tests.unit.evaluators.inference_rows import ENDPOINT, endpoint_tables
from tests.unit.evaluators.scoring_evaluators import LengthEvaluator


def main(root: Path) -> None:
    clock = SystemClock()
    history = RunHistory(Database(f"sqlite:///{root}/history.db"), clock)
    Backfill(
        endpoint_tables(root),
        ENDPOINT,
        LengthEvaluator(pause_s=0.005),
        history,
        clock,
        since=datetime(2026, 1, 1, tzinfo=UTC),
        until=datetime(2027, 1, 1, tzinfo=UTC),
        max_rows=5,
    ).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
