"""What :mod:`benchmarks.collector_ingest` measures, each in a process of its own::

    python -m benchmarks.ingest_under_test collect FOLDER   FOLDER/spool into FOLDER/tables, by the collector
    python -m benchmarks.ingest_under_test write FOLDER     FOLDER/batches.arrow into FOLDER/bare, by write_deltalake

The last line is a JSON object: ``seconds`` of the work (imports and opening of files left out), ``rows``, ``cpu_s``
(user + system, all threads), ``peak_rss_mb`` (VmHWM).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from benchmarks.traffic import ENDPOINT
from collector.catalog import Catalog, TableName
from collector.dead_letter import DeadLetter
from collector.ingest import Collector
from servelens.processes.collector import suit_memory_to_batches
from servelens.settings import CollectorSettings


def catalog(folder: Path) -> Catalog:
    return Catalog(str(folder / "tables"), {ENDPOINT: TableName("main", "serving", ENDPOINT)})


def collect(folder: Path) -> int:
    """Rows that the collector, with its default settings, has put into the table until the spool was empty."""
    settings = CollectorSettings()
    collector = Collector(
        folder / "spool",
        catalog(folder),
        DeadLetter(folder / "dead-letter"),
        commit_interval_s=settings.commit_interval_s,
        max_rows=settings.max_rows,
        drain_timeout_s=3600.0,
    )
    drained = collector.drain()
    status = collector.status
    collector.close()
    if not drained or status.dead_lettered or status.failing or status.halted:
        raise SystemExit(f"the collector did not take everything: {status}")
    return status.in_table


def write(batches: list[pa.RecordBatch], target: Path) -> int:
    """Rows written by one plain append for each batch."""
    for batch in batches:
        write_deltalake(str(target), pa.table(batch), mode="append", partition_by=["request_date"])
    return sum(batch.num_rows for batch in batches)


def main() -> None:
    action, folder = sys.argv[1], Path(sys.argv[2])
    batches: list[pa.RecordBatch] = []
    if action == "write":
        with pa.memory_map(str(folder / "batches.arrow")) as source:
            batches = pa.ipc.open_file(source).read_all().to_batches()
    pa.array(["imports pandas, once, where it is installed"])
    before, cpu_before = time.perf_counter(), _cpu_s()
    suit_memory_to_batches()
    rows = collect(folder) if action == "collect" else write(batches, folder / "bare")
    seconds, cpu = time.perf_counter() - before, _cpu_s() - cpu_before
    print(json.dumps({"seconds": seconds, "rows": rows, "cpu_s": cpu, "peak_rss_mb": _peak_rss_mb()}))


def _peak_rss_mb() -> float:
    # Not ru_maxrss, which a child inherits from the process that started it.
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
