"""A collector as a process of its own: ``python -m tests.unit.collector.collector_process FOLDER``.

It loads everything, waits for a line on its standard input, then collects ``FOLDER/spool`` into ``FOLDER/lake`` until
SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from collector.catalog import Catalog, TableName
from collector.dead_letter import DeadLetter
from collector.ingest import Collector


def catalog(folder: Path) -> Catalog:
    """Two endpoints, ``chat`` and ``code``."""
    names = {name: TableName("main", "serving", name) for name in ("chat", "code")}
    return Catalog(str(folder / "lake"), names)


def main(folder: Path) -> None:
    """Collect until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    collector = Collector(
        folder / "spool",
        catalog(folder),
        DeadLetter(folder / "dead"),
        commit_interval_s=0.02,
        max_rows=200,
        drain_timeout_s=120.0,
    )
    sys.stdin.readline()
    collector.run(stop)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
