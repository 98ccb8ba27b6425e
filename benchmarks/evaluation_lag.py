"""How long an answer waits for its score: ``python -m benchmarks.evaluation_lag``.

``servelens up`` as a user starts it (proxy, collector, scheduler, console), 100 calls a second for a minute, open loop, and
the scheduler scoring every answer for toxicity with the offline model, all on two cores with load and backend. A score's
lag is ``scored_at`` less ``request_time``. ``kept_up``: every answer has its score, none of them waited for over a minute,
and the metric ``servelens_evaluation_lag_seconds`` came back to 0 after the load. ``lag_metric_max_s`` is the largest value
of that metric at scrapes once a second. CPU shares are of two cores, over the time of the load.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import quantiles
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import polars as pl
import uvloop
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.chaos_load import Load
from benchmarks.contenders import start_backend
from benchmarks.freshness import ENDPOINT, NO_STREAMS, settings
from benchmarks.measuring import Unusable, cpu_seconds, free_port, print_machine, wait_for
from collector.catalog import EndpointTables
from servelens.assembly.tables import build_catalog
from servelens.settings_file import load_settings

LIMIT_S: Final = 60.0
PATIENCE_S: Final = 120.0
START_S: Final = 5.0
LAG: Final = "servelens_evaluation_lag_seconds"
FINISHED: Final = "servelens_evaluation_last_finished_timestamp_seconds"


class Scraper(threading.Thread):
    """Reads the lag from the scheduler's metrics once a second."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.values_s: list[float] = []
        self.over = threading.Event()
        self._url = f"http://127.0.0.1:{port}/metrics"

    def run(self) -> None:
        while not self.over.wait(1.0):
            value = self.read()
            if value is not None:
                self.values_s.append(value)

    def read(self, name: str = LAG) -> float | None:
        """The metric now; ``None`` before the scheduler says one."""
        with suppress(URLError, OSError), urlopen(self._url, timeout=10) as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                for sample in family.samples:
                    if sample.name == name:
                        return float(sample.value)
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description="from an answer to its score")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two runs of the evaluation")
    arguments = parser.parse_args()
    print_machine()
    try:
        with tempfile.TemporaryDirectory(prefix="evaluation-lag-") as folder:
            print(json.dumps(run(Path(folder), arguments.seconds, arguments.rate, arguments.every)))
    except Unusable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def run(folder: Path, seconds: float, rate: float, every_s: float) -> dict[str, Any]:
    """One run; gives the figures of the last line."""
    with ExitStack() as stack:
        backend = stack.enter_context(start_backend(folder))
        port = free_port()
        config = folder / "servelens.yaml"
        written = settings(folder, port, backend.port)
        written["evaluations"] = [{"endpoint": ENDPOINT, "evaluator": "toxicity", "every_s": every_s}]
        written["maintenance"] = {"every_s": 30}
        scheduler = free_port()
        written["scheduler"] = {"port": scheduler}
        config.write_text(yaml.safe_dump(written))
        log = folder / "servelens.log"
        with log.open("wb") as output:
            system = subprocess.Popen(
                [sys.executable, "-m", "servelens", "up", "--config", str(config)],
                stdout=output,
                stderr=output,
            )
        try:
            wait_for(port, system, log)
            scraper = Scraper(scheduler)
            await_model(scraper, system, log)
            tables = build_catalog(load_settings(config)).tables(ENDPOINT)
            scraper.start()
            load = Load(port, rate=rate, stream_every=NO_STREAMS)
            before_s, began = cpu_seconds(system.pid), time.monotonic()
            scheduler_pid = child(system.pid, "scheduler")
            scoring_s = cpu_seconds(scheduler_pid)
            uvloop.run(load.run(time.monotonic() + START_S, seconds))
            took_s = time.monotonic() - began
            shares = {
                "cpu_share": (cpu_seconds(system.pid) - before_s) / took_s / 2,
                "cpu_share_scheduler": (cpu_seconds(scheduler_pid) - scoring_s) / took_s / 2,
            }
            await_scores(tables, len(load.calls))
            back_to_zero = await_zero(scraper)
            scraper.over.set()
            scraper.join()
        finally:
            system.send_signal(signal.SIGINT)
            system.wait(120)
    return report(tables, load, shares, scraper.values_s, back_to_zero=back_to_zero, seconds=seconds)


def await_model(scraper: Scraper, system: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the scheduler leads and has the model loaded."""
    until = time.monotonic() + PATIENCE_S
    while scraper.read(FINISHED) is None:
        if system.poll() is not None or time.monotonic() > until:
            raise Unusable(f"the scheduler does not evaluate: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def await_scores(tables: EndpointTables, count: int) -> None:
    """Wait until there are so many scores, or it takes too long."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if tables.scores.scan().select(pl.len()).collect().item() >= count:
            return
        time.sleep(0.2)


def await_zero(scraper: Scraper) -> bool:
    """Whether the metric says that nothing waits any more."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if scraper.read() == 0.0:
            return True
        time.sleep(0.2)
    return False


def child(parent: int, command: str) -> int:
    """The process id of ``servelens COMMAND`` under ``parent``."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            owner = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if owner == parent and command.encode() in words:
                return int(path.name)
    raise Unusable(f"there is no process {command}")


def report(
    tables: EndpointTables,
    load: Load,
    shares: dict[str, float],
    metric_s: list[float],
    *,
    back_to_zero: bool,
    seconds: float,
) -> dict[str, Any]:
    failed = sum(not call.complete for call in load.calls)
    if failed:
        raise Unusable(f"{failed} of {len(load.calls)} calls failed")
    scores = (
        tables.scores.scan().select("databricks_request_id", "score", "request_time", "scored_at").collect()
    )
    if scores.is_empty():
        raise Unusable("there are no scores")
    lag = (pl.col("scored_at") - pl.col("request_time")).dt.total_microseconds() / 1e6
    lags = scores.select(lag.alias("lag"))["lag"].to_list()
    centiles = quantiles(lags, n=100)
    last, first = scores["scored_at"].max(), scores["request_time"].min()
    whole = scores.height == scores["databricks_request_id"].n_unique() == len(load.calls)
    kept_up = whole and scores["score"].null_count() == 0 and max(lags) <= LIMIT_S and back_to_zero
    return {
        "kept_up": bool(kept_up),
        "records": len(load.calls),
        "scores": scores.height,
        "lag_p50_s": round(centiles[49], 2),
        "lag_p99_s": round(centiles[98], 2),
        "lag_max_s": round(max(lags), 2),
        "lag_metric_max_s": round(max(metric_s), 2) if metric_s else None,
        "records_per_s": round(scores.height / (last - first).total_seconds(), 1),  # type: ignore[operator, union-attr]
        **{name: round(share, 3) for name, share in shares.items()},
        "load_lag_p99_ms": round(quantiles([call.lag_s for call in load.calls], n=100)[98] * 1e3, 1),
        "cores": len(os.sched_getaffinity(0)),
        "seconds": seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
