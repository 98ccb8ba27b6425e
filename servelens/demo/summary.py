"""What the demo prints at the end, read from the Delta tables and the console's API, not from its own counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from collector.catalog import EndpointTables

_HEADINGS = (
    "variant",
    "users",
    "records",
    "errors",
    "latency p50",
    "first token",
    "tokens",
    "perplexity",
    "rude",
)


def variant_rows(tables: EndpointTables) -> pl.DataFrame:
    """One row a variant: records, errors, latency, first token, output tokens and scores."""
    scores = (
        tables.scores.scan()
        .filter(pl.col("score").is_not_null())
        .group_by("databricks_request_id")
        .agg(
            _score("perplexity", "response").alias("perplexity"),
            _score("toxicity", "request").alias("rude"),
        )
    )
    return (
        tables.payload.scan()
        .filter(~pl.col("is_shadow"))
        .join(scores, on="databricks_request_id", how="left")
        .group_by("variant")
        .agg(
            pl.len().alias("records"),
            pl.col("unit").n_unique().alias("users"),
            (pl.col("status_code") >= 400).sum().alias("errors"),
            pl.col("execution_duration_ms").median().alias("latency_p50_ms"),
            pl.col("time_to_first_token_ms").median().alias("first_token_p50_ms"),
            pl.col("output_tokens").sum().alias("output_tokens"),
            pl.col("perplexity").median().alias("perplexity_median"),
            (pl.col("rude") > 0.5).sum().alias("rude_requests"),
        )
        .sort("variant")
        .collect()
    )


def thumbs_said(tables: EndpointTables) -> dict[str, int]:
    """How many users said up and down."""
    said = tables.feedback.scan().filter(pl.col("name") == "thumbs").group_by("label").len().collect()
    return {str(label): count for label, count in said.iter_rows()}


def print_summary(
    console: Console,
    *,
    sent: int,
    in_table: int,
    rows: pl.DataFrame,
    report: Mapping[str, Any],
    thumbs: Mapping[str, int],
    cases: Mapping[str, int],
    exported: int,
    export_file: str,
    dashboard: str,
    proxy: str,
) -> None:
    """The short table, the verdict, and where to go from here."""
    equal = "=" if sent == in_table else "≠"
    table = Table(title=f"records sent {sent} {equal} records in the table {in_table}", title_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading == "variant" else "right", no_wrap=True)
    for row in rows.iter_rows(named=True):
        table.add_row(
            str(row["variant"]),
            str(row["users"]),
            str(row["records"]),
            str(row["errors"]),
            _number(row["latency_p50_ms"], " ms"),
            _number(row["first_token_p50_ms"], " ms"),
            _number(row["output_tokens"]),
            _number(row["perplexity_median"]),
            str(row["rude_requests"]),
        )
    console.print()
    console.print(table)
    console.print(f"[bold]verdict[/bold]    {report['verdict']}", highlight=False)
    for metric in report["metrics"]:
        for comparison in metric["comparisons"]:
            console.print(f"           {_comparison(metric, comparison)}", highlight=False)
    said = ", ".join(f"{count} thumbs {label}" for label, count in sorted(thumbs.items(), reverse=True))
    console.print(f"[bold]feedback[/bold]   {said or 'none'}", highlight=False)
    queued = ", ".join(f"{count} {state}" for state, count in sorted(cases.items()) if count)
    console.print(f"[bold]cases[/bold]      {queued or 'none'}", highlight=False)
    console.print(
        f"[bold]export[/bold]     {exported} conversations in {export_file}", highlight=False, soft_wrap=True
    )
    console.print(f"[bold]dashboard[/bold]  {dashboard}", highlight=False)
    console.print(f"[bold]proxy[/bold]      {proxy}/v1", highlight=False)


def _score(evaluator: str, target: str) -> pl.Expr:
    wanted = (pl.col("evaluator") == evaluator) & (pl.col("target") == target)
    return pl.col("score").filter(wanted).first()


def _comparison(metric: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    name, treatment, verdict = metric["name"], comparison["treatment"], comparison["verdict"]
    always = comparison.get("always_valid") or {}
    p_value = always.get("p_value")
    shown = (
        "" if p_value is None else f" (always-valid p {'< 0.0001' if p_value < 1e-4 else f'= {p_value:.4f}'})"
    )
    return f"{name}: {treatment} {verdict}{shown}"


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}{unit}" if abs(value) >= 10 else f"{value:.2g}{unit}"
