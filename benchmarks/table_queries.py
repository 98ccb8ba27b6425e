"""How long a question over the inference table takes: ``python -m benchmarks.table_queries``.

The question: p50, p95 and p99 of the latency and the error rate, per variant and minute, over 10 million records with
bodies of 200 bytes there and 200 back, in files of 100,000 rows as compaction leaves them. ``seconds`` is the median of
the rounds by polars on :meth:`collector.table.Table.scan`; ``duckdb_seconds`` the same question to DuckDB over the same
files, where it is installed, in the same rounds. Quantiles are exact in both, and the answers are compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from benchmarks.ingest_under_test import catalog
from benchmarks.measuring import print_machine
from benchmarks.traffic import ENDPOINT, records
from collector.inference_table import TIMESTAMP
from collector.normalize import rows
from collector.table import Table

BODY_BYTES = 200
ROWS_PER_FILE = 100_000
SPACING_US = 1_000
QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="latency quantiles per variant and minute over a large table"
    )
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="table-queries-") as folder:
        table = catalog(Path(folder)).tables(ENDPOINT).payload
        fill(table, arguments.records)
        print(json.dumps(run(table, arguments.records, arguments.rounds)))


def run(table: Table, count: int, rounds: int) -> dict[str, float]:
    """Both answers in turn, after one round to warm the file cache."""
    contenders: dict[str, Callable[[Table], pl.DataFrame]] = {"polars": by_polars}
    if find_spec("duckdb") is not None:
        contenders["duckdb"] = by_duckdb
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    answers: dict[str, pl.DataFrame] = {}
    for number in range(rounds + 1):
        for name, ask in contenders.items():
            before = time.perf_counter()
            answers[name] = ask(table)
            if number:
                taken[name].append(time.perf_counter() - before)
    first = answers["polars"]
    if int(first["requests"].sum()) != count:
        raise SystemExit(f"the answer is over {first['requests'].sum()} records of {count}")
    for name, answer in answers.items():
        if not answer.select(first.columns).equals(first):
            raise SystemExit(f"polars and {name} disagree")
    for name, seconds in taken.items():
        print(f"{name:8} {median(seconds):6.2f} s, {first.height} rows of {count} records")
    figures = {"seconds": round(median(taken["polars"]), 3), "records": count, "groups": first.height}
    if "duckdb" in taken:
        figures["duckdb_seconds"] = round(median(taken["duckdb"]), 3)
    return figures


def by_polars(table: Table) -> pl.DataFrame:
    duration = pl.col("execution_duration_ms")
    return (
        table.scan()
        .group_by(pl.col("request_time").dt.truncate("1m").alias("minute"), "variant")
        .agg(
            pl.len().cast(pl.Int64).alias("requests"),
            *(duration.quantile(q, "linear").alias(name) for name, q in QUANTILES.items()),
            (pl.col("status_code") >= 500).mean().alias("error_rate"),
        )
        .sort("minute", "variant")
        .collect(engine="streaming")
    )


def by_duckdb(table: Table) -> pl.DataFrame:
    import duckdb

    files = DeltaTable(table.uri).file_uris()
    quantiles = ", ".join(
        f"quantile_cont(execution_duration_ms, {q}) AS {name}" for name, q in QUANTILES.items()
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        answer = connection.sql(
            f"SELECT date_trunc('minute', request_time) AS minute, variant, count(*) AS requests, {quantiles}, "
            "avg((status_code >= 500)::DOUBLE) AS error_rate FROM read_parquet($files) "
            "GROUP BY ALL ORDER BY minute, variant",
            params={"files": files},
        ).to_arrow_table()
    return pl.DataFrame(answer).with_columns(pl.col("minute").cast(pl.Datetime("us", "UTC")))


def fill(table: Table, count: int) -> None:
    """``count`` rows: the first file's worth over and over, with times and durations of their own."""
    now_us = time.time_ns() // 1_000
    portion = min(ROWS_PER_FILE, count)
    traffic = list(records(portion, request_bytes=BODY_BYTES, response_bytes=BODY_BYTES, end_us=now_us))
    base = rows(traffic, "benchmark", range(portion))
    ages = pa.array(range(portion, 0, -1), pa.int64())
    for start in range(0, count, portion):
        size = min(portion, count - start)
        moments = pc.subtract(
            pa.scalar(now_us - (count - start - portion) * SPACING_US), pc.multiply(ages, SPACING_US)
        )
        times = moments.view(TIMESTAMP)
        durations = pc.add(base.column("execution_duration_ms"), pa.scalar(start // portion % 97, pa.int64()))
        part = base
        for name, values in (
            ("request_time", times),
            ("request_date", times.cast(pa.date32())),
            ("execution_duration_ms", durations),
        ):
            part = part.set_column(part.schema.get_field_index(name), part.schema.field(name), values)
        table.append(part.slice(0, size))


if __name__ == "__main__":
    main()
