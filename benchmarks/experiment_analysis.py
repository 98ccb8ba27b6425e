"""How long a look at a large experiment takes: ``python -m benchmarks.experiment_analysis``.

The table has 10 million records of two variants over a week, with bodies of 200 bytes there and 200 back, in files of
100,000 rows as compaction leaves them, and a score of every record; two million users have about five records each. The
experiment has five metrics: success rate, typical latency, its 95th percentile, tokens per answer, and toxicity.

``first_s`` is a look without a state, by user; ``update_s`` one after 100,000 more records have been appended, with their
scores. Both are the whole look (:class:`experiments.analysis.analyzer.Analyzer`): the tables are read, the statistics
calculated, and the report is in the database. ``first_by_request_s`` and ``update_by_request_s`` are the same where the
request is the unit. All are medians of the rounds. ``peak_rss_mb`` is the process's largest memory during the looks.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.ingest_under_test import catalog
from benchmarks.measuring import print_machine
from benchmarks.traffic import ENDPOINT, records
from collector.catalog import EndpointTables
from collector.inference_table import TIMESTAMP
from collector.normalize import rows
from experiments.analysis import analyzer
from experiments.experiment import Experiment, Variant
from experiments.store import ExperimentStore
from servelens.clock import ManualClock, datetime_us
from servelens.database import Database

BODY_BYTES = 200
ROWS_PER_FILE = 100_000
RECORDS_OF_A_USER = 5
SPAN = timedelta(days=6.9)
START = datetime(2026, 3, 2, tzinfo=UTC)
METRICS = ("success_rate", "latency_ms", "latency_ms:p95", "output_tokens", "score:toxicity")
HEXADECIMAL = np.frombuffer(b"0123456789abcdef", np.uint8)


class Traffic:
    """Records that are alike but for what an analysis reads of them, a constant time apart from ``START`` on."""

    def __init__(self, tables: EndpointTables, count: int, seed: int) -> None:
        self._tables = tables
        self._users = max(count // RECORDS_OF_A_USER, 1)
        self._spacing_us = int(SPAN / timedelta(microseconds=1)) // count
        self.written = 0
        self._rng = np.random.default_rng(seed)
        traffic = records(
            ROWS_PER_FILE, request_bytes=BODY_BYTES, response_bytes=BODY_BYTES, end_us=datetime_us(START)
        )
        self._base = rows(list(traffic), "benchmark", range(ROWS_PER_FILE))

    @property
    def now(self) -> datetime:
        """When the next record would come."""
        return START + timedelta(microseconds=self.written * self._spacing_us)

    def append(self, count: int) -> None:
        """Append as many records, and their scores."""
        for size in [ROWS_PER_FILE] * (count // ROWS_PER_FILE) + [count % ROWS_PER_FILE]:
            if size:
                self._append(size)

    def _append(self, size: int) -> None:
        times = datetime_us(self.now) + np.arange(size) * self._spacing_us
        columns = self._columns(times)
        part = self._base.slice(0, size)
        for name, values in columns.items():
            part = part.set_column(part.schema.get_field_index(name), part.schema.field(name), values)
        self._tables.payload.append(part)
        shared = {"databricks_request_id", "request_date", "request_time", "served_entity", "variant"}
        constant = {
            "endpoint": ENDPOINT,
            "evaluator": "toxicity",
            "evaluator_version": "1",
            "target": "response",
            "details": '{"toxicity": 0.01}',
        }
        scores = {
            **{name: values for name, values in columns.items() if name in shared},
            **{name: pa.array([word] * size) for name, word in constant.items()},
            "score": pa.array(self._rng.beta(1, 30, size)),
            "scored_at": pa.array(times + 60_000_000).view(TIMESTAMP),
        }
        self._tables.scores.append(pa.table(scores))
        self.written += size

    def _columns(self, times: NDArray[np.int64]) -> dict[str, Any]:
        rng, size = self._rng, len(times)
        users = rng.integers(0, self._users, size)
        treated = (users * 2_654_435_761 >> 7) & 1
        failed = rng.random(size) < 0.02
        moments = pa.array(times).view(TIMESTAMP)
        variant = pa.array(np.where(treated, "challenger", "champion").tolist())
        return {
            "databricks_request_id": _request_ids(times, rng),
            "request_time": moments,
            "request_date": moments.cast(pa.date32()),
            "variant": variant,
            "served_entity": variant,
            "unit": pa.array([f"user-{user}" for user in users.tolist()]),
            "status_code": pa.array(np.where(failed, 502, 200), pa.int32()),
            "error_type": pa.array(
                [("upstream_status" if bad else None) for bad in failed.tolist()], pa.string()
            ),
            "execution_duration_ms": pa.array(rng.lognormal(6.0, 0.8, size).astype(np.int64)),
            "output_tokens": pa.array(rng.poisson(60, size)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="a look at an experiment over a large table")
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--added", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="experiment-analysis-") as folder:
        print(json.dumps(run(Path(folder), arguments)))


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Fill the tables, then look in rounds, by user and by request."""
    tables = catalog(folder).tables(ENDPOINT)
    traffic = Traffic(tables, arguments.records, arguments.seed)
    traffic.append(arguments.records)
    os.sync()  # or the first look would wait until the tables have left the page cache
    _forget_peak()
    figures: dict[str, float] = {"records": arguments.records, "added": arguments.added}
    for unit, by in (("user", ""), ("request", "by_request_")):
        first, update = _looks(folder / unit, tables, traffic, unit, arguments)
        figures |= {f"first_{by}s": round(first, 3), f"update_{by}s": round(update, 3)}
    return {**figures, "peak_rss_mb": round(_peak_rss_mb())}


def _looks(
    folder: Path, tables: EndpointTables, traffic: Traffic, unit: str, arguments: argparse.Namespace
) -> tuple[float, float]:
    """Seconds of a look without a state, and of one after more has been appended: medians of the rounds."""
    folder.mkdir()
    clock = ManualClock(START)
    database = Database(f"sqlite:///{folder / 'servelens.db'}")
    database.create_tables()
    store = ExperimentStore(database, clock)
    control, treatment = (Variant(name, name, 50.0) for name in ("champion", "challenger"))
    primary, *secondary = METRICS
    experiment = Experiment(
        "models",
        ENDPOINT,
        control,
        (treatment,),
        primary,
        tuple(secondary),
        unit=unit,
        planned_units=2_000_000,
    )
    store.register(experiment)
    looks = analyzer.Analyzer(tables, store, clock, folder / "state")
    taken: dict[str, list[float]] = {"first": [], "update": []}
    for name in [name for name in taken for _ in range(arguments.rounds)]:
        if name == "first":
            shutil.rmtree(folder / "state", ignore_errors=True)
        else:
            traffic.append(arguments.added)
        clock.advance((traffic.now - clock.now()).total_seconds())
        before, cpu_before = time.perf_counter(), time.process_time()
        report = looks.analyze(experiment.name)
        taken[name].append(time.perf_counter() - before)
        cpu = time.process_time() - cpu_before
        counted = sum(report.records.values())
        if counted != traffic.written:
            raise SystemExit(f"the look counted {counted} records of {traffic.written}")
        print(
            f"{unit:8} {name:7} {taken[name][-1]:6.2f} s, {cpu:6.2f} s of CPU, "
            f"{counted} records, {report.units} units"
        )
    return median(taken["first"]), median(taken["update"])


def _request_ids(times: NDArray[np.int64], rng: np.random.Generator) -> pa.Array:
    """UUIDv7, as the proxy makes them, of the given times (microseconds)."""
    stamps = (times.astype(np.uint64) << np.uint64(12)) // np.uint64(1000)
    tails = rng.integers(0, 1 << 62, len(times), dtype=np.uint64)
    text = np.full((len(times), 36), ord("-"), np.uint8)
    fields = (
        (0, 8, stamps >> np.uint64(28)),
        (9, 4, stamps >> np.uint64(12)),
        (14, 4, np.uint64(0x7000) | (stamps & np.uint64(0xFFF))),
        (19, 4, np.uint64(0x8000) | tails >> np.uint64(48)),
        (24, 12, tails),
    )
    for start, digits, values in fields:
        shifts = np.arange(4 * (digits - 1), -1, -4, dtype=np.uint64)
        text[:, start : start + digits] = HEXADECIMAL[
            (values[:, None] >> shifts & np.uint64(15)).astype(np.intp)
        ]
    ends = np.arange(0, text.size + 1, 36, dtype=np.int32)
    return pa.StringArray.from_buffers(len(times), pa.py_buffer(ends), pa.py_buffer(text))


def _forget_peak() -> None:
    """Let the process's peak memory begin anew (proc_pid_clear_refs(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_rss_mb() -> float:
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
