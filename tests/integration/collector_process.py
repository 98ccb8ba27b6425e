"""A collector of its own spool root, on tables anywhere: ``python -m tests.integration.collector_process ARGUMENTS``.

``ARGUMENTS`` is JSON: ``folder`` (with the spool and the dead letter), ``root``, ``storage_options``, ``options`` of the
collector. It collects until SIGTERM and then drains the spool.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collector.catalog import Catalog, TableName
from collector.dead_letter import DeadLetter
from collector.ingest import Collector

DRAIN_S = 60.0


def catalog(root: str, storage_options: Mapping[str, str]) -> Catalog:
    """One endpoint, ``chat``."""
    return Catalog(root, {"chat": TableName("main", "serving", "chat")}, storage_options=storage_options)


@contextmanager
def collector_process(
    folder: Path, root: str, storage_options: Mapping[str, str], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one until the block ends."""
    arguments = {
        "folder": str(folder),
        "root": root,
        "storage_options": dict(storage_options),
        "options": options,
    }
    command = [sys.executable, "-m", "tests.integration.collector_process", json.dumps(arguments)]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


def main(arguments: Mapping[str, Any]) -> None:
    """Collect until SIGTERM, then drain."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    folder = Path(arguments["folder"])
    collector = Collector(
        folder / "spool",
        catalog(arguments["root"], arguments["storage_options"]),
        DeadLetter(folder / "dead"),
        drain_timeout_s=DRAIN_S,
        **arguments["options"],
    )
    collector.run(stop)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
