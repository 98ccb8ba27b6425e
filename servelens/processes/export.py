"""``servelens export`` and ``servelens relabel export``: labels as training data, in files or in a table."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector.catalog import Catalog
from relabel.export.formats.format import Layout
from relabel.export.formats.registry import format_of
from relabel.export.manifest import Manifests
from relabel.export.query import ExportQuery
from relabel.export.reproduce import read_manifest, reproduce
from relabel.export.requested import requested_query
from relabel.export.table_export import export_table
from relabel.export.table_versions import table_versions
from relabel.export.write import write_export
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.database import Database
from servelens.errors import Invalid, Missing
from servelens.processes.person import user
from servelens.settings_file import load_settings


@dataclass(frozen=True, slots=True)
class _Here:
    database: Database
    catalog: Catalog
    manifests: Manifests
    endpoints: list[str]


def run(config: Path, endpoint: str | None, output: Path) -> int:
    """Write OpenAI chat fine-tuning data, whole or not at all, and say what is in it and what was left out."""
    return write(config, output, {"endpoint": () if endpoint is None else (endpoint,)})


def write(config: Path, output: Path | None, words: Mapping[str, Any]) -> int:
    """Write the export that is asked for in ``words`` (see :func:`~relabel.export.requested.requested_query`)."""
    query = requested_query(**words)
    is_table = format_of(query.format).layout is Layout.TABLE
    if output is None and not is_table:
        raise Invalid("it is missing", field="--output", fix="Name the file or folder to write.")
    with _opened(config) as here:
        for endpoint in query.endpoints:
            if endpoint not in here.endpoints:
                known = ", ".join(here.endpoints)
                raise Missing(f"there is no endpoint '{endpoint}'.", fix=f"Use one of: {known}.")
        if is_table:
            made = export_table(here.database, here.catalog, query, here.manifests, by=user())
            table = made["table"]
            _say(f"{made['counts']['written']} decisions appended to {table['uri']}")
        else:
            assert output is not None, "checked above"
            made = write_export(here.database, query, output, here.manifests, by=user())
            _say(_what(query, made["counts"], output))
    return 0


def make_again(config: Path, manifest: Path, output: Path | None) -> int:
    """Make the export of ``manifest`` again; 1 and what is different when it is not the same. ``output`` takes the files;
    without it they are thrown away.
    """
    then = read_manifest(manifest)
    with _opened(config) as here:
        with tempfile.TemporaryDirectory(prefix="servelens-export-") as scratch:
            compared = reproduce(here.database, then, Path(scratch))
        if output is not None:
            query = ExportQuery.from_json(then["query"])
            write_export(here.database, query, output, here.manifests, by=user())
    for line in compared.lines():
        _say(line)
    if compared.is_same:
        _say("The files are the same.")
    return 0 if compared.is_same else 1


@contextlib.contextmanager
def _opened(config: Path) -> Iterator[_Here]:
    settings = load_settings(config)
    database = build_database(settings)
    clock = SystemClock()
    try:
        store = open_endpoint_store(settings, database, clock)
        _, endpoints = store.state(deleted=True)
        catalog = build_catalog(settings, store)
        manifests = Manifests(database, clock.now, table_versions(catalog))
        yield _Here(database, catalog, manifests, [each.name for each in endpoints])
    finally:
        database.dispose()


def _what(query: ExportQuery, counts: Mapping[str, Any], output: Path) -> str:
    kind = "conversations" if query.format == "openai_chat" else "examples"
    told = f"{counts['written']} {kind} in {output}"
    parts = counts.get("by_split") or {}
    if parts:
        told += f" ({', '.join(f'{rows} {name}' for name, rows in parts.items())})"
    left_out = ", ".join(f"{count} {reason}" for reason, count in counts["left_out"].items())
    masked = ", ".join(f"{count} {kind}" for kind, count in (counts.get("masked") or {}).items())
    told += f" (left out: {left_out})" if left_out else ""
    return told + (f" (masked: {masked})" if masked else "")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
