"""Traffic, latency, errors and tokens of an endpoint over a window, per arm and per bin of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from collector.catalog import Catalog
from dashboard.queries import ARM, TableReader, collect, failed_expression, number, scan
from dashboard.view import View, Window

_COLUMNS = (
    "request_time",
    "status_code",
    "error_type",
    "execution_duration_ms",
    "time_to_first_token_ms",
    "input_tokens",
    "output_tokens",
    "is_shadow",
)
_OTHER_ERRORS = "other"
_MOST_ERROR_TYPES = 5


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums and quantiles over one window. Durations in milliseconds; ``None`` where there is nothing to measure."""

    requests: int = 0
    errors: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    first_token_p50: float | None = None
    first_token_p95: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def error_rate(self) -> float | None:
        return self.errors / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class Traffic:
    """One endpoint over one window.

    ``bins`` has a row per arm and bin of time that saw traffic: arm, bin, requests, errors, p50, p95, p99,
    first_token_p50, first_token_p95, first_token_p99, input_tokens, output_tokens. ``errors`` has bin, error, count.
    """

    window: Window
    bins: pl.DataFrame
    errors: pl.DataFrame
    total: Totals
    previous: Totals
    per_arm: dict[str, Totals]
    newest: datetime | None
    as_of: datetime


class TrafficQueries:
    """Reads the inference tables for the Overview."""

    def __init__(self, catalog: Catalog, reader: TableReader) -> None:
        self._catalog = catalog
        self._reader = reader

    def traffic(self, view: View) -> Traffic:
        """The endpoint's traffic in the view's window and in the window before. Shadow calls are left out."""
        table = self._catalog.tables(view.endpoint).payload

        def compute() -> Traffic:
            as_of = self._reader.now()
            window = view.window
            bin_ = pl.col("request_time").dt.truncate(_every(window.bin)).alias("bin")
            rows = _served(scan(table, window.since, window.until, _COLUMNS, view.arms)).with_columns(bin_)
            before = window.previous()
            earlier = _served(scan(table, before.since, before.until, _COLUMNS, view.arms))
            error = pl.coalesce(pl.col("error_type"), pl.format("HTTP {}", pl.col("status_code"))).alias(
                "error"
            )
            frames = pl.collect_all(
                [
                    rows.group_by("bin", ARM).agg(*_measures()).sort("bin", ARM),
                    rows.filter("failed").group_by("bin", error).agg(pl.len().alias("count")).sort("bin"),
                    rows.group_by(ARM).agg(*_measures()),
                    rows.select(*_measures(), pl.col("request_time").max().alias("newest")),
                    earlier.select(*_measures()),
                ],
                engine="streaming",
            )
            bins, errors, arms, total, previous = frames
            return Traffic(
                window=window,
                bins=bins,
                errors=_most_common(errors),
                total=_totals(total),
                previous=_totals(previous),
                per_arm={str(row[ARM]): _totals_of(row) for row in arms.iter_rows(named=True)},
                newest=total.item(0, "newest"),
                as_of=as_of,
            )

        return self._reader.read([table], ("traffic", view.endpoint, view.window, view.arms), compute)

    def count(self, endpoint: str, window: Window) -> int:
        """How many records an endpoint has in a window."""
        table = self._catalog.tables(endpoint).payload

        def compute() -> int:
            frame = table.scan(since=window.since, until=window.until).select(pl.len().alias("rows"))
            return int(collect(frame).item(0, "rows"))

        return self._reader.read([table], ("count", endpoint, window), compute)

    def exists(self, endpoint: str) -> bool:
        """Whether the endpoint has ever had a record."""
        return self._reader.version(self._catalog.tables(endpoint).payload) is not None


def _served(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.filter(~pl.col("is_shadow").fill_null(False)).with_columns(
        failed_expression().alias("failed")
    )


def _measures() -> Sequence[pl.Expr]:
    # A call that failed early is quick for a bad reason, so it does not count as a fast answer.
    duration = pl.col("execution_duration_ms").filter(~pl.col("failed"))
    first = pl.col("time_to_first_token_ms")
    return (
        pl.len().alias("requests"),
        pl.col("failed").sum().alias("errors"),
        duration.quantile(0.5, "linear").alias("p50"),
        duration.quantile(0.95, "linear").alias("p95"),
        duration.quantile(0.99, "linear").alias("p99"),
        first.quantile(0.5, "linear").alias("first_token_p50"),
        first.quantile(0.95, "linear").alias("first_token_p95"),
        first.quantile(0.99, "linear").alias("first_token_p99"),
        pl.col("input_tokens").sum().alias("input_tokens"),
        pl.col("output_tokens").sum().alias("output_tokens"),
    )


def _totals(frame: pl.DataFrame) -> Totals:
    return _totals_of(frame.row(0, named=True)) if frame.height else Totals()


def _totals_of(row: dict[str, object]) -> Totals:
    return Totals(
        requests=int(number(row["requests"]) or 0),
        errors=int(number(row["errors"]) or 0),
        p50=number(row["p50"]),
        p95=number(row["p95"]),
        p99=number(row["p99"]),
        first_token_p50=number(row["first_token_p50"]),
        first_token_p95=number(row["first_token_p95"]),
        input_tokens=int(number(row["input_tokens"]) or 0),
        output_tokens=int(number(row["output_tokens"]) or 0),
    )


def _most_common(errors: pl.DataFrame) -> pl.DataFrame:
    common = (
        errors.group_by("error").agg(pl.col("count").sum()).sort(["count", "error"], descending=[True, False])
    )
    kept = common["error"].to_list()[:_MOST_ERROR_TYPES]
    named = pl.when(pl.col("error").is_in(kept)).then(pl.col("error")).otherwise(pl.lit(_OTHER_ERRORS))
    return (
        errors.with_columns(named.alias("error"))
        .group_by("bin", "error")
        .agg(pl.col("count").sum())
        .sort("bin", "error")
    )


def _every(width: timedelta) -> str:
    return f"{int(width.total_seconds())}s"
