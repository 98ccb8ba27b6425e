"""``servelens drift``: verdicts from the drift tables, and reports of chosen windows, for the user of this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich.console import Console
from rich.table import Table

from collector.catalog import Catalog
from collector.table import Table as DeltaTable
from evaluators.drift.pair_report import PairReports, PairRequest, chosen_slice, chosen_window
from evaluators.drift.report import ReportWriter
from evaluators.drift.verdict import drifted
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.errors import Invalid, Missing, Unavailable
from servelens.settings import Settings
from servelens.settings_file import load_settings

_CANNOT_SAY: Final = "—"
_DRIFTED: Final = {True: "drifted", False: "no", None: "too few rows"}
_PIPE_WIDTH: Final = 500
_START: Final = pl.col("window").struct.field("start")


def show(
    config: Path,
    endpoint: str,
    granularity: str | None,
    *,
    last: int,
    alpha: float,
    only_drifted: bool,
    as_json: bool,
) -> int:
    """A table, or JSON, on standard output."""
    with _catalog(config) as (_, catalog):
        rows = _last_windows(catalog.tables(endpoint).drift, endpoint, granularity, last)
    verdicts = drifted(rows, alpha).with_columns(
        pl.format("{}={}", "slice_key", "slice_value").alias("slice")
    )
    if only_drifted:
        verdicts = verdicts.filter("drifted")
    verdicts = verdicts.sort(
        [_START, pl.col("drifted").cast(pl.Int8), "p_adjusted", "slice", "column_name"],
        descending=[True, True, False, False, False],
        nulls_last=True,
    )
    if as_json:
        sys.stdout.write(json.dumps({"endpoint": endpoint, "columns": _plain(verdicts)}, indent=2) + "\n")
        return 0
    _print_table(verdicts)
    tested = verdicts["p_value"].count()
    found = int(verdicts["drifted"].sum() or 0)
    sys.stderr.write(f"{found} of {tested} tested columns drifted, {verdicts.height - tested} untested.\n")
    return 0


def report(
    config: Path, endpoint: str, window: str, against: str, part: str | None, output: Path | None
) -> int:
    """The path on standard output."""
    request = PairRequest(
        endpoint, chosen_window(window, "--window"), chosen_window(against, "--against"), chosen_slice(part)
    )
    with _catalog(config) as (settings, catalog):
        path = PairReports(catalog, ReportWriter(settings.reports_dir)).write(request, output)
    sys.stdout.write(f"{path}\n")
    return 0


@contextmanager
def _catalog(config: Path) -> Iterator[tuple[Settings, Catalog]]:
    settings = load_settings(config)
    database = build_database(settings)
    try:
        yield settings, build_catalog(settings, open_endpoint_store(settings, database, SystemClock()))
    finally:
        database.dispose()


def _last_windows(table: DeltaTable, endpoint: str, granularity: str | None, last: int) -> pl.DataFrame:
    rows = table.scan()
    try:
        known = rows.select("granularity", _START.alias("start")).unique().collect()
        names = known["granularity"].unique().sort().to_list()
        if not names:
            raise Missing(
                f"endpoint {endpoint!r} has no drift yet",
                field="--endpoint",
                fix="Set 'drift' for it, and run the scheduler for two windows.",
            )
        if (granularity is None and len(names) > 1) or (granularity is not None and granularity not in names):
            asked = "there are several" if granularity is None else f"there is no {granularity!r}"
            raise Invalid(asked, field="--granularity", fix=f"Choose one of: {', '.join(names)}.")
        chosen = granularity or names[0]
        starts = known.filter(granularity=chosen)["start"].sort(descending=True).head(last)
        return rows.filter(pl.col("granularity") == chosen, _START.is_in(starts.to_list())).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the table cannot be read: {error}", field=table.uri) from error


def _print_table(verdicts: pl.DataFrame) -> None:
    table = Table("window", "against", "slice", "column", "test", "p adjusted", "effect", "verdict")
    for row in verdicts.iter_rows(named=True):
        effect = row["effect"]
        table.add_row(
            _span(row["window"]),
            str(row["reference"] or _span(row["window_cmp"])),
            row["slice"] or "all",
            row["column_name"],
            row["test"] or _CANNOT_SAY,
            _CANNOT_SAY if row["p_adjusted"] is None else f"{row['p_adjusted']:.2g}",
            _CANNOT_SAY if effect is None else f"{effect:.3f} {row['effect_name']}",
            _DRIFTED[row["drifted"]],
        )
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:  # a pipe has no width that columns would have to be cut to
        console.width = _PIPE_WIDTH
    console.print(table)


def _span(window: dict[str, datetime] | None) -> str:
    if window is None:
        return _CANNOT_SAY
    return f"{window['start']:%Y-%m-%d %H:%M} – {window['end']:%Y-%m-%d %H:%M}"


def _plain(verdicts: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            name: {key: moment.isoformat() for key, moment in value.items()}
            if isinstance(value, dict)
            else value
            for name, value in row.items()
        }
        for row in verdicts.iter_rows(named=True)
    ]
