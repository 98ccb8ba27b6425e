"""``servelens verify``: the books of every record, closed or not."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from collector.audit import Audit, Books, WorkerBooks
from collector.dead_letter import DeadLetter
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.settings_file import load_settings

_COLUMNS = (
    "accepted",
    "in_table",
    "in_spool",
    "in_dead_letter",
    "damaged",
    "removed",
    "dropped",
    "missing",
    "duplicates",
)
_SHOWN_REGIONS = 50


def run(config: Path, *, as_json: bool) -> int:
    """Print the books; 0 when they add up and 1 when they do not."""
    settings = load_settings(config)
    database = build_database(settings)
    try:
        catalog = build_catalog(settings, open_endpoint_store(settings, database, SystemClock()))
        books = Audit(settings.spool_directory, catalog, DeadLetter(settings.dead_letter_directory)).run()
    finally:
        database.dispose()
    if as_json:
        sys.stdout.write(json.dumps(document(books), indent=2) + "\n")
    else:
        _print(books)
    return 0 if books.adds_up else 1


def document(books: Books) -> dict[str, Any]:
    """The books as JSON: ``total`` and each of ``workers`` with their counts, and everything that has a name."""
    written = asdict(books)
    for worker, each in zip(written["workers"], books.workers, strict=True):
        worker["adds_up"] = each.adds_up
    return {
        "adds_up": books.adds_up,
        "total": {
            **{name: sum(getattr(worker, name) for worker in books.workers) for name in _COLUMNS},
            "dropped_by_reason": _reasons(books.workers),
            "damaged_regions": len(books.regions),
        },
        **written,
    }


def _reasons(workers: list[WorkerBooks]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for worker in workers:
        for reason, count in worker.dropped_by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
        unknown = worker.dropped - sum(worker.dropped_by_reason.values())
        if unknown:
            reasons["unknown"] = reasons.get("unknown", 0) + unknown
    return reasons


def _print(books: Books) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:  # a pipe has no width that columns would have to be cut to
        console.width = 500
    table = Table("worker", *(name.replace("_", " ") for name in _COLUMNS))
    for worker in books.workers:
        name = worker.worker_id if worker.directory is not None else f"{worker.worker_id} (no spool here)"
        table.add_row(name, *(f"{getattr(worker, column):,}" for column in _COLUMNS))
    table.add_section()
    totals = (sum(getattr(worker, column) for worker in books.workers) for column in _COLUMNS)
    table.add_row("all", *(f"{total:,}" for total in totals))
    console.print(table)
    reasons = _reasons(books.workers)
    if reasons:
        parts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
        console.print(f"Dropped: {parts}.")
    for region in books.regions[:_SHOWN_REGIONS]:
        where = "dead letter" if region.in_dead_letter else "spool, not yet in the dead letter"
        console.print(
            f"Damaged ({where}): {region.worker_id} {region.segment} bytes {region.start}-{region.end}, "
            f"{region.missing} records from offset {region.first_missing}: {region.reason}"
        )
    if len(books.regions) > _SHOWN_REGIONS:
        console.print(f"… and {len(books.regions) - _SHOWN_REGIONS} more damaged regions (--json names all).")
    for worker in books.workers:
        if worker.gaps:
            kind = "Not accounted for" if worker.directory is None else "Missing"
            spans = ", ".join(
                f"{first}" if first == last else f"{first}-{last}" for first, last in worker.gaps
            )
            where = "somewhere in the offsets" if worker.removed else "offsets"
            console.print(f"{kind}: {worker.worker_id} {worker.missing:,} records, {where} {spans}")
    if any(worker.directory is None for worker in books.workers):
        console.print(
            "Workers without a spool here are known from the tables only: they accepted at least so many, and what "
            "they may lack is not accounted for."
        )
    if books.duplicate_id_rows:
        console.print(f"Request ids with more than one row: {', '.join(books.duplicate_ids)}")
    for problem in books.problems:
        console.print(f"Could not be looked at: {problem}")
    console.print("The books add up." if books.adds_up else "The books do not add up.")
