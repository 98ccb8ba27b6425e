"""How fast the collector is beside a bare ``write_deltalake``: ``python -m benchmarks.collector_ingest``.

The collector, with its default settings, reads a full spool into an inference table. Beside it, in the same rounds and
on the same cores, ``write_deltalake`` appends the very rows that came out, as ready-made Arrow batches of the size of the
collector's commits: what is left of the work when reading, checking, decoding, parsing and exactly-once cost nothing.

- small: chat calls of 600 bytes there and 600 back; ``rows_ratio_small`` is our rows/s over theirs.
- large: 20 kB there and 4 kB back; ``mb_ratio_large`` is our MB/s over theirs, MB of both bodies.
- backlog: ``peak_rss_mb`` is the collector's highest resident memory while it catches up with so many small records.

Medians of the rounds' ratios; which of the two goes first alternates.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from benchmarks.ingest_under_test import catalog
from benchmarks.measuring import print_machine
from benchmarks.traffic import ENDPOINT, fill_spool, records


class Size(NamedTuple):
    """Bytes of a request and of its answer."""

    request: int
    response: int


SMALL, LARGE = Size(600, 600), Size(20_000, 4_000)


def main() -> None:
    parser = argparse.ArgumentParser(description="rows/s of the collector beside a bare write_deltalake")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", type=int, default=200_000, help="small records a round")
    parser.add_argument("--large", type=int, default=20_000, help="large records a round")
    parser.add_argument(
        "--backlog", type=int, default=5_000_000, help="small records that wait; 0 leaves it out"
    )
    arguments = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="collector-ingest-") as folder:
        print(json.dumps(run(Path(folder), arguments)))


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """All measurements; prints a table, gives the figures of the last line."""
    small = compare(folder / "small", SMALL, arguments.small, arguments.rounds)
    large = compare(folder / "large", LARGE, arguments.large, arguments.rounds)
    figures = {
        "rows_ratio_small": round(small["ratio"], 3),
        "rows_per_second_small": round(small["per_second"]),
        "mb_ratio_large": round(large["ratio"], 3),
        "mb_per_second_large": round(large["per_second"] * sum(LARGE) / 1e6, 1),
    }
    if arguments.backlog:
        figures |= catch_up(folder / "backlog", arguments.backlog)
    return figures


def compare(folder: Path, size: Size, count: int, rounds: int) -> dict[str, float]:
    """Rows/s of both, alternating; the collector's spool is linked anew for each round, since it is emptied."""
    filled = folder / "filled"
    fill(filled, size, count)
    measured(folder, filled, "collect")  # warm; and its rows are what the other writes
    save_batches(folder)
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for number in range(rounds):
        for action in ("collect", "write") if number % 2 == 0 else ("write", "collect"):
            result = measured(folder, filled, action)
            if result["rows"] != count:
                raise SystemExit(f"{action}: {result['rows']} rows of {count}")
            (ours if action == "collect" else theirs).append(result)
    print(f"{size.request} + {size.response} bytes, {count} records")
    for name, results in (("collector", ours), ("write_deltalake", theirs)):
        rate = median(each["rows"] / each["seconds"] for each in results)
        cpu = median(each["cpu_s"] / each["rows"] * 1e6 for each in results)
        peak = max(each["peak_rss_mb"] for each in results)
        print(
            f"  {name:16} {rate:9.0f} rows/s  {rate * sum(size) / 1e6:7.1f} MB/s  {cpu:6.1f} CPU µs/row  {peak:5.0f} MB"
        )
    shutil.rmtree(folder)
    return {
        "ratio": median(b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)),
        "per_second": median(each["rows"] / each["seconds"] for each in ours),
    }


def catch_up(folder: Path, count: int) -> dict[str, float]:
    """The collector's memory and speed while ``count`` records wait."""
    filled = folder / "filled"
    fill(filled, SMALL, count)
    result = measured(folder, filled, "collect")
    shutil.rmtree(folder)
    print(f"backlog of {count}: {result['rows'] / result['seconds']:.0f} rows/s, {result['peak_rss_mb']} MB")
    return {
        "peak_rss_mb": result["peak_rss_mb"],
        "backlog_rows_per_second": round(result["rows"] / result["seconds"]),
    }


def fill(spool: Path, size: Size, count: int) -> None:
    now_us = time.time_ns() // 1000
    traffic = records(count, request_bytes=size.request, response_bytes=size.response, end_us=now_us)
    spool.mkdir(parents=True)
    fill_spool(spool / "proxy-0", traffic)
    os.sync()  # the collector reads only what is on the disk: the kernel's write-back is not its work


def measured(folder: Path, filled: Path, action: str) -> dict[str, Any]:
    """One run of ``action`` in a process of its own, into fresh tables."""
    for name in ("spool", "tables", "bare"):
        shutil.rmtree(folder / name, ignore_errors=True)
    if action == "collect":
        subprocess.run(["cp", "--archive", "--link", str(filled), str(folder / "spool")], check=True)
    command = [sys.executable, "-m", "benchmarks.ingest_under_test", action, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def save_batches(folder: Path) -> None:
    """The collector's rows in the order and the portions of its commits."""
    table = catalog(folder).tables(ENDPOINT).payload
    files = pl.DataFrame(pa.table(DeltaTable(table.uri).get_add_actions(flatten=True)))
    portions = files.sort("min.spool_offset").get_column("num_records").to_list()
    rows = table.scan().sort("spool_offset").collect().to_arrow().cast(table.schema)
    at = 0
    with pa.OSFile(str(folder / "batches.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        for portion in portions:
            file.write_batch(rows.slice(at, portion).combine_chunks().to_batches()[0])
            at += portion


if __name__ == "__main__":
    main()
