"""A process that records that an alert fired and is killed before anybody is told: ``delivering FOLDER``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from evaluators.alerts.store import AlertStore
from servelens.clock import ManualClock
from servelens.database import Database
from tests.unit.evaluators.alerts.rules import START, breached, rule


def main(folder: Path) -> None:
    clock = ManualClock(START)
    database = Database(f"sqlite:///{folder}/alerts.db")
    database.create_tables()
    assert AlertStore(database, clock).record(rule(), "", breached(), lambda: ["r1"]) == "fire"
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
