"""How old an answer is when its row can be read: ``python -m benchmarks.freshness``.

``servelens up`` as a user starts it (one proxy worker, collector, scheduler, console), 1,000 calls a second for a minute,
open loop, and the scheduler compacting the table all the time. A reader follows the table by its version, as evaluators
do. A row's age is the moment when the reader has it less the moment when its answer was given (``request_time`` +
``execution_duration_ms``; one clock, rounded to a millisecond). ``rows`` must be the calls; ``compactions`` and
``files_removed`` say that compaction was at work; ``load_lag_p99_ms`` is how late the load itself was.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles
from typing import Final

import polars as pl
import uvloop
import yaml
from deltalake import DeltaTable

from benchmarks.chaos_load import Load
from benchmarks.contenders import start_backend
from benchmarks.measuring import Unusable, free_port, print_machine, wait_for
from collector.table import Table
from servelens.assembly.tables import build_catalog
from servelens.settings_file import load_settings

ENDPOINT: Final = "chat"
NO_STREAMS: Final = 1 << 60
LOOK_S: Final = 0.02
PATIENCE_S: Final = 60.0
START_S: Final = 5.0


class Follower:
    """Reads what is new in a table, over and over, and notes how old each row is by then (seconds)."""

    def __init__(self, table: Table) -> None:
        self.ages_s: list[float] = []
        self._table = table
        self._version: int | None = None

    def run(self, enough: threading.Event, expected: list[int]) -> None:
        """Until ``enough`` is set and the rows that are ``expected`` by then have been seen."""
        deadline = float("inf")
        while True:
            if enough.is_set():
                deadline = min(deadline, time.monotonic() + PATIENCE_S)
                if len(self.ages_s) >= expected[0] or time.monotonic() > deadline:
                    return
            changes = self._table.read_since(self._version, columns=["request_time", "execution_duration_ms"])
            now_us = time.time_ns() // 1_000
            self._version = changes.version
            if changes.frame.height:
                answered = pl.col("request_time").dt.epoch("us") + pl.col("execution_duration_ms") * 1_000
                self.ages_s += changes.frame.select((now_us - answered) / 1e6).to_series().to_list()
            time.sleep(LOOK_S)


def main() -> int:
    parser = argparse.ArgumentParser(description="from an answer to its readable row")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1_000.0, help="calls a second")
    arguments = parser.parse_args()
    print_machine()
    try:
        with tempfile.TemporaryDirectory(prefix="freshness-") as folder:
            print(json.dumps(run(Path(folder), arguments.seconds, arguments.rate)))
    except Unusable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def run(folder: Path, seconds: float, rate: float) -> dict[str, float]:
    """One run; gives the figures of the last line."""
    with ExitStack() as stack:
        backend = stack.enter_context(start_backend(folder))
        port = free_port()
        config = folder / "servelens.yaml"
        config.write_text(yaml.safe_dump(settings(folder, port, backend.port)))
        log = folder / "servelens.log"
        with log.open("wb") as output:
            system = subprocess.Popen(
                [sys.executable, "-m", "servelens", "up", "--config", str(config)],
                stdout=output,
                stderr=output,
            )
        try:
            wait_for(port, system, log)
            table = build_catalog(load_settings(config)).tables(ENDPOINT).payload
            follower, enough, expected = Follower(table), threading.Event(), [0]
            reading = threading.Thread(target=follower.run, args=(enough, expected))
            reading.start()
            load = Load(port, rate=rate, stream_every=NO_STREAMS)
            gc.disable()
            uvloop.run(load.run(time.monotonic() + START_S, seconds))
            gc.enable()
            expected[0] = sum(call.complete for call in load.calls)
            enough.set()
            reading.join()
        finally:
            system.send_signal(signal.SIGINT)
            system.wait(120)
    return report(follower.ages_s, load, DeltaTable(table.uri).history())


def settings(folder: Path, port: int, backend: int) -> dict[str, object]:
    entity = {"name": "champion", "backend": {"urls": [f"http://127.0.0.1:{backend}"]}}
    routes = [{"served_entity_name": "champion", "traffic_percentage": 100}]
    return {
        "data_dir": str(folder / "data"),
        "endpoints": [
            {
                "name": ENDPOINT,
                "config": {"served_entities": [entity], "traffic_config": {"routes": routes}},
            }
        ],
        "proxy": {"port": port},
        "console": {"port": free_port()},
        "collector": {"port": free_port()},
        "scheduler": {"port": free_port()},
        "maintenance": {"every_s": 1, "compact_min_files": 4},
    }


def report(ages_s: list[float], load: Load, history: list[dict[str, object]]) -> dict[str, float]:
    failed = sum(not call.complete for call in load.calls)
    if failed or len(ages_s) != len(load.calls):
        raise Unusable(f"{len(load.calls)} calls, {failed} failed, {len(ages_s)} rows seen")
    compactions = [each for each in history if each.get("operation") == "OPTIMIZE"]
    removed = 0
    for each in compactions:
        metrics = each.get("operationMetrics")
        if isinstance(metrics, dict):
            removed += int(metrics.get("numFilesRemoved", 0))
    centiles = quantiles(ages_s, n=100)
    return {
        "p50_s": round(centiles[49], 3),
        "p99_s": round(centiles[98], 3),
        "max_s": round(max(ages_s), 3),
        "rows": len(ages_s),
        "compactions": len(compactions),
        "files_removed": removed,
        "load_lag_p99_ms": round(quantiles([call.lag_s for call in load.calls], n=100)[98] * 1e3, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
